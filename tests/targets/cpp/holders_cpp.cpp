// flags: -std=c++17
/* Blocks that are held in every way that C++ has, and some that nobody holds. Each function
 * allocates the blocks whose holder is asked for; `keep` then waits in a frame that holds
 * some. The truth is what the functions say themselves. */
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <pthread.h>
#include <string>
#include <unordered_map>
#include <vector>

#include "../c/target.h"

#ifndef CHECK
#define CHECK() (void)0
#endif

namespace {

constexpr int kCount = 64;

/* What is asked for. */
struct Session {
    long number;
    char bytes[1201];
};

/* Written over before they are given back, as memory in a real program is. */
SITE void scrub() {
    volatile char bytes[32768];
    for (volatile char &byte : bytes) byte = 1;
}

// --- Held --------------------------------------------------------------------

std::vector<Session *> g_vector;
SITE void in_vector() {
    for (int index = 0; index < kCount; index++)
        g_vector.push_back(static_cast<Session *>(opaque(new Session{index, {}})));
}

std::unordered_map<std::string, std::unique_ptr<Session>> g_sessions;
SITE void in_map() {
    for (int index = 0; index < kCount; index++) {
        auto key = "a key that is longer than sixteen bytes " + std::to_string(index);
        g_sessions.emplace(key, std::unique_ptr<Session>(new Session{index, {}}));
    }
}

/* A vector's end leads to what lies right behind its buffer. That is the next block of the same
 * size class in LeakSanitizer's heap, which then counts as held: so nodes are of another class
 * than the buffers of vectors, which have powers of two. */
struct Node {
    Node *next;
    char bytes[571];
};
Node *g_list;
SITE void in_list() {
    for (int index = 0; index < kCount; index++)
        g_list = static_cast<Node *>(opaque(new Node{g_list, {}}));
}

struct Listener {
    virtual ~Listener() = default;
    virtual void told() {}
};
struct Named {
    virtual ~Named() = default;
    long name = 0;
};
/* Its second base is inside. */
struct Gauge : Named, Listener {
    char bytes[709];
};
struct Registry {
    virtual ~Registry() = default;
    std::list<Listener *> listeners;
};
Registry *g_registry;
SITE void by_base_class() {
    g_registry = new Registry;
    for (int index = 0; index < kCount; index++)
        g_registry->listeners.push_back(static_cast<Gauge *>(opaque(new Gauge)));
}

thread_local std::vector<std::unique_ptr<Session>> t_sessions;
SITE void in_thread_local() {
    for (int index = 0; index < kCount; index++)
        t_sessions.emplace_back(new Session{index, {}});
}

SITE std::map<int, std::shared_ptr<Session>> &statics() {
    static std::map<int, std::shared_ptr<Session>> sessions;
    return sessions;
}
SITE void in_static() {
    for (int index = 0; index < kCount; index++)
        statics()[index] = std::make_shared<Session>();
}

std::vector<std::function<long()>> g_callbacks;
SITE void in_closure() {
    for (int index = 0; index < kCount; index++) {
        std::shared_ptr<Session> session(new Session{index, {}});
        g_callbacks.emplace_back([session] { return session->number; });
    }
}

// --- Lost --------------------------------------------------------------------

SITE void dropped() {
    for (int index = 0; index < kCount; index++)
        opaque(new Session{index, {}});
}

struct Peer {
    std::shared_ptr<Peer> peer;
    char bytes[601];
};
SITE void in_cycle() {
    for (int index = 0; index < kCount / 2; index++) {
        std::shared_ptr<Peer> one(new Peer), other(new Peer);
        one->peer = other;
        other->peer = one;
    }
}

SITE Node *a_list() {
    Node *list = nullptr;
    for (int index = 0; index < kCount; index++)
        list = static_cast<Node *>(opaque(new Node{list, {}}));
    return list;
}
SITE void dropped_list() { opaque(a_list()); }

/* Freed blocks had pointers to these. */
SITE void behind_freed() {
    Session **boxes[kCount];
    for (int index = 0; index < kCount; index++) {
        boxes[index] = static_cast<Session **>(opaque(new Session *[3]));
        boxes[index][2] = static_cast<Session *>(opaque(new Session{index, {}}));
        opaque(boxes[index]);
    }
    for (Session **box : boxes) delete[] box;
    opaque(boxes);
}

// --- Held by stacks, while commands are waited for ----------------------------

SITE Session *of_stack(int index) { return static_cast<Session *>(opaque(new Session{index, {}})); }

struct Started {
    pthread_barrier_t barrier;
    pthread_mutex_t until_end;
} g_started;

SITE void *worker(void *) {
    Session *sessions[kCount];
    for (int index = 0; index < kCount; index++) sessions[index] = of_stack(index);
    opaque(sessions);
    pthread_barrier_wait(&g_started.barrier);
    pthread_mutex_lock(&g_started.until_end);
    opaque(sessions);
    return nullptr;
}
SITE void on_stack() {
    pthread_barrier_init(&g_started.barrier, nullptr, 2);
    pthread_mutex_init(&g_started.until_end, nullptr);
    pthread_mutex_lock(&g_started.until_end);
    pthread_t thread;
    if (pthread_create(&thread, nullptr, worker, nullptr)) std::abort();
    pthread_barrier_wait(&g_started.barrier);
}

SITE void work() {
    in_vector();
    in_map();
    in_list();
    by_base_class();
    in_thread_local();
    in_static();
    in_closure();
    on_stack();
    dropped();
    in_cycle();
    dropped_list();
    behind_freed();
    scrub();
    truth_others = 1;
}

/* What a leak detector within the program says. */
void check() { CHECK(); }

const Command commands[] = {COMMAND(work), COMMAND(check), {nullptr, nullptr}};

} // namespace

int main(int count, char **arguments) { return serve(count, arguments, commands); }
