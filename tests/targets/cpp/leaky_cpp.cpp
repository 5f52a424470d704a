// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls
// A service of sessions, texts and tables, some 90,000 allocations a second: a listener is
// registered by each hundredth request, and never removed.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../c/leaky.h"

namespace {

constexpr double REQUESTS = 9000;
constexpr unsigned SESSIONS = 4001;

struct Listener {
    Listener *next;
    char state[1001];
};

struct Session {
    std::string user;
    std::vector<int> seen;
};

Listener *listeners;
std::map<unsigned, std::unique_ptr<Session>> sessions;
unsigned long requests;
volatile std::size_t total;

SITE void register_listener() {
    auto *listener = new Listener();
    listener->next = listeners;
    listeners = listener;
    leaked_bytes += sizeof(Listener);
}

SITE Session &session(unsigned number) {
    auto &session = sessions[number];
    if (!session) {
        session = std::make_unique<Session>();
        session->user = "user " + std::to_string(number) + " of a service with long names";
    }
    return *session;
}

SITE std::string render(const Session &session) {
    std::vector<std::string> lines;
    for (int line = 0; line < 3; line++)
        lines.push_back(session.user + " has seen " + std::to_string(session.seen.size()));
    std::string page;
    for (const auto &line : lines)
        page += line + '\n';
    return page;
}

SITE void request() {
    unsigned number = chance() % (2 * SESSIONS);
    if (number >= SESSIONS) {
        sessions.erase(number - SESSIONS);
    } else {
        Session &found = session(number);
        found.seen.push_back(static_cast<int>(number));
        total = total + render(found).size();
    }
    work(40000);
    if (++requests % 100 == 0)
        register_listener();
}

} // namespace

int main() {
    serve_requests(REQUESTS, request);
    return 0;
}
