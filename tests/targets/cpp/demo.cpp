// flags: -std=c++17
//
// A small web shop that leaks. Three places allocate:
//
//   keep_session     1,013 bytes for each failed login, never freed: the leak
//   fetch_page         769 bytes a page, in a cache of 64 that evicts: steady
//   load_catalogue  40,009 bytes, three times at the start: and never again
//
// It prints `pid N` and `ready`, and waits for a line on standard input before
// it begins. It serves 400 requests a second, as many as its argument says,
// and ends when standard input is closed, or after a minute. The last line it
// prints tells how often each place allocated and freed.

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <poll.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr long kRequestsPerSecond = 400;
constexpr long kSecondsAtMost = 60;

struct Count {
    long allocated = 0;
    long freed = 0;
};

Count catalogue_count, session_count, page_count;

// --- The catalogue: loaded once ---------------------------------------------

struct Chapter {
    char items[40009];
};

struct Catalogue {
    std::array<std::unique_ptr<Chapter>, 3> chapters;
};

__attribute__((noinline)) std::unique_ptr<Chapter> load_chapter(char mark) {
    std::unique_ptr<Chapter> chapter(new Chapter);
    std::memset(chapter->items, mark, sizeof chapter->items);
    ++catalogue_count.allocated;
    return chapter;
}

__attribute__((noinline)) void load_catalogue(Catalogue &catalogue) {
    char mark = 'a';
    for (auto &chapter : catalogue.chapters) chapter = load_chapter(mark++);
}

// --- Sessions: every failed login keeps one ---------------------------------

struct Session {
    Session *previous;
    char state[1013 - sizeof(Session *)];
} __attribute__((packed));
static_assert(sizeof(Session) == 1013, "a prime size, to be recognised by");

class Sessions {
  public:
    bool login(long request);

  private:
    void keep_session(long request);

    Session *newest_ = nullptr;
};

__attribute__((noinline)) Session *new_session(long request) {
    Session *session = new Session;
    std::snprintf(session->state, sizeof session->state, "login %ld failed", request);
    ++session_count.allocated;
    return session;
}

// "To look at later", but nobody does.
__attribute__((noinline)) void Sessions::keep_session(long request) {
    Session *session = new_session(request);
    session->previous = newest_;
    newest_ = session;
}

__attribute__((noinline)) bool Sessions::login(long request) {
    const bool failed = request % 5 == 4;
    if (failed) keep_session(request);
    return !failed;
}

// --- Pages: a cache with a bound --------------------------------------------

struct Page {
    long number;
    char text[769 - sizeof(long)];
} __attribute__((packed));
static_assert(sizeof(Page) == 769, "a prime size, to be recognised by");

class PageCache {
  public:
    const Page &fetch_page(long number);

  private:
    std::array<Page *, 64> pages_{};
};

__attribute__((noinline)) Page *render_page(long number) {
    Page *page = new Page;
    page->number = number;
    std::snprintf(page->text, sizeof page->text, "page %ld", number);
    ++page_count.allocated;
    return page;
}

__attribute__((noinline)) const Page &PageCache::fetch_page(long number) {
    Page *&slot = pages_[static_cast<size_t>(number) % pages_.size()];
    if (slot != nullptr && slot->number != number) {
        delete slot;
        slot = nullptr;
        ++page_count.freed;
    }
    if (slot == nullptr) slot = render_page(number);
    return *slot;
}

// --- The shop ---------------------------------------------------------------

class Shop {
  public:
    void open() { load_catalogue(catalogue_); }
    void handle_request(long request);

  private:
    Catalogue catalogue_;
    Sessions sessions_;
    PageCache cache_;
};

__attribute__((noinline)) void Shop::handle_request(long request) {
    if (!sessions_.login(request)) return;
    cache_.fetch_page(request * 7 % 257);
}

// --- The loop ---------------------------------------------------------------

// Nothing here may allocate, and stdio does: so plain write().
void print(const char *text) {
    const size_t length = std::strlen(text);
    if (write(STDOUT_FILENO, text, length) != static_cast<ssize_t>(length)) std::abort();
}

long milliseconds_since(const timespec &start) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
}

// Waits for input until a moment after the start; true when it is closed.
bool is_closed_before(const timespec &start, long milliseconds) {
    for (;;) {
        const long left = milliseconds - milliseconds_since(start);
        if (left <= 0) return false;
        pollfd input{STDIN_FILENO, POLLIN, 0};
        if (poll(&input, 1, static_cast<int>(left)) <= 0) return false;
        char ignored[64];
        if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return true;
    }
}

void serve(Shop &shop, long requests) {
    timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    shop.open();
    for (long request = 0; request < requests; ++request) {
        if (is_closed_before(start, request * 1000 / kRequestsPerSecond)) return;
        shop.handle_request(request);
    }
    is_closed_before(start, kSecondsAtMost * 1000);
}

} // namespace

int main(int argc, char **argv) {
    const long most = kRequestsPerSecond * kSecondsAtMost;
    const long wanted = argc > 1 ? std::atol(argv[1]) : most;
    char line[512];
    std::snprintf(line, sizeof line, "pid %d\nready\n", static_cast<int>(getpid()));
    print(line);
    char go;
    do {
        if (read(STDIN_FILENO, &go, 1) <= 0) return 0;
    } while (go != '\n');

    static Shop shop;
    serve(shop, wanted < most ? wanted : most);

    std::snprintf(line, sizeof line,
                  "{\"keep_session\": {\"size\": %zu, \"allocated\": %ld, \"freed\": %ld}, "
                  "\"fetch_page\": {\"size\": %zu, \"allocated\": %ld, \"freed\": %ld}, "
                  "\"load_catalogue\": {\"size\": %zu, \"allocated\": %ld, \"freed\": %ld}}\n",
                  sizeof(Session), session_count.allocated, session_count.freed, sizeof(Page),
                  page_count.allocated, page_count.freed, sizeof(Chapter),
                  catalogue_count.allocated, catalogue_count.freed);
    print(line);
    // The process ends here and now: what is live stays live to the end.
    _exit(0);
}
