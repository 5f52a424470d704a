// flags: -std=c++17
// Labelled behaviours in C++: see verdicts.h, and labels.json for what each of them is.
#include "verdicts.h"

#include <array>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

// What is counted: objects of these sizes. Nodes of containers are their own affair, and
// small beside them.
template <long Size> struct Sized {
    std::array<char, Size> bytes;
};

// Leaks.

struct Listener {
    std::array<char, 803> state;
    Listener *next;
};

// One of thirty requests adds a listener that nobody removes; requests follow the day.
SITE static void add_listeners(double now) {
    static Listener *listeners;
    for (int come = arrivals(400 * sunlight(now)); come > 0; come--) {
        std::string request(100, 'r');
        if (chance() % 30 == 0) {
            auto *listener = new Listener();
            listener->next = listeners;
            listeners = listener;
            held[0] += sizeof(Listener);
        }
    }
}

struct Peer {
    std::shared_ptr<Peer> other;
    std::array<char, 1000> state;
};

// Two objects that hold each other.
SITE static void pair_peers(double) {
    for (int come = arrivals(16); come > 0; come--) {
        auto one = std::make_shared<Peer>(), other = std::make_shared<Peer>();
        one->other = other;
        if (chance() % 4 == 0) {
            other->other = one;
            held[0] += 2 * sizeof(Peer);
        }
    }
}

// A cache without a bound: each key is new.
SITE static void remember_answers(double) {
    static std::unordered_map<unsigned long, std::string> answers;
    static unsigned long key;
    for (int come = arrivals(20); come > 0; come--) {
        answers.emplace(key++, std::string(1500, 'a'));
        held[0] += 1501;
    }
}

struct Job {
    std::array<char, 1200> state;
    double until;
};

// Most are deleted soon; one in twenty is not.
SITE static void forget_jobs(double now) {
    static std::list<Job *> jobs;
    jobs.remove_if([&](Job *job) {
        if (job->until > now)
            return false;
        delete job;
        held[0] -= sizeof(Job);
        return true;
    });
    for (int come = arrivals(60); come > 0; come--) {
        auto *job = new Job();
        job->until = now + lifetime(0.2);
        held[0] += sizeof(Job);
        if (chance() % 20 != 0)
            jobs.push_back(job);
    }
}

template <int Kind> SITE static void load_plugin() {
    opaque(new Sized<300 + Kind>());
    held[0] += 300 + Kind;
}

template <int... Kinds> static auto plugins(std::integer_sequence<int, Kinds...>) {
    return std::array<void (*)(), sizeof...(Kinds)>{load_plugin<Kinds>...};
}

// Sixty functions that leak a little each.
SITE static void load_plugins(double) {
    static auto all = plugins(std::make_integer_sequence<int, 60>());
    for (int come = arrivals(30); come > 0; come--)
        all[below(60)]();
}

// Two users of one function: one keeps what it is given.
using Node = Sized<1100>;
SITE static Node *make_node() { return new Node(); }

SITE static void on_update() {
    opaque(make_node());
    held[0] += sizeof(Node);
}

SITE static void on_insert() {
    static std::deque<std::unique_ptr<Node>> nodes;
    nodes.emplace_back(make_node());
    held[1] += sizeof(Node);
    if (nodes.size() > 200) {
        nodes.pop_front();
        held[1] -= sizeof(Node);
    }
}

static void shared_maker(double) {
    for (int come = arrivals(5); come > 0; come--)
        on_update();
    for (int come = arrivals(40); come > 0; come--)
        on_insert();
}

// What is healthy.

SITE static void live_sessions(double now) {
    static std::multimap<double, std::unique_ptr<Sized<1700>>> sessions;
    while (!sessions.empty() && sessions.begin()->first <= now) {
        sessions.erase(sessions.begin());
        held[0] -= 1700;
    }
    for (int come = arrivals(30); come > 0; come--) {
        sessions.emplace(now + lifetime(3), std::make_unique<Sized<1700>>());
        held[0] += 1700;
    }
}

// Of a bounded number of keys all are known some day; the table is enlarged meanwhile.
template <unsigned Keys, long Size> static void look_up(double rate) {
    static std::unordered_map<unsigned, std::unique_ptr<Sized<Size>>> known;
    for (int come = arrivals(rate); come > 0; come--) {
        auto &value = known[below(Keys)];
        if (!value) {
            value = std::make_unique<Sized<Size>>();
            held[0] += Size;
        }
    }
}

SITE static void rehash_table(double) { look_up<800, 500>(200); }
SITE static void intern_names(double) { look_up<400, 900>(80); }
SITE static void late_cache(double) { look_up<1500, 1300>(30); }

// One block that is enlarged for ever.
SITE static void double_vector(double) {
    static std::vector<long> values;
    for (int come = arrivals(2000); come > 0; come--)
        values.push_back(come);
    held[0] = static_cast<long>(values.capacity() * sizeof(long));
}

SITE static void refill_vector(double) {
    static std::vector<long> values;
    if (values.size() >= 28000)
        std::vector<long>().swap(values);
    for (int come = arrivals(3000); come > 0; come--)
        values.push_back(come);
    held[0] = static_cast<long>(values.capacity() * sizeof(long));
}

// More comes than is done for four seconds, and less for four.
SITE static void lagging_queue(double now) {
    static std::deque<std::unique_ptr<Sized<1400>>> queue;
    bool lags = static_cast<long>(now / 4) % 2 == 0;
    for (int come = arrivals(50); come > 0; come--) {
        queue.push_back(std::make_unique<Sized<1400>>());
        held[0] += 1400;
    }
    for (int done = arrivals(lags ? 15 : 120); done > 0 && !queue.empty(); done--) {
        queue.pop_front();
        held[0] -= 1400;
    }
}

// What is made when it is first asked for: all of it in the first seconds.
SITE static void make_lazily(double now) {
    static std::array<std::unique_ptr<Sized<5000>>, 40> parts;
    for (std::size_t part = 0; part < parts.size(); part++)
        if (!parts[part] && now > 0.15 * static_cast<double>(part)) {
            parts[part] = std::make_unique<Sized<5000>>();
            held[0] += 5000;
        }
}

// Connections that are kept once they were needed, up to a bound.
SITE static void connect_pool(double now) {
    static std::vector<std::unique_ptr<Sized<8000>>> pool;
    if (pool.empty())
        pool.reserve(32);
    if (pool.size() < 32 && now > 0.3 * static_cast<double>(pool.size())) {
        pool.push_back(std::make_unique<Sized<8000>>());
        held[0] += 8000;
    }
    // Each is closed after a while, and another one opened.
    if (pool.size() == 32 && arrivals(0.5) > 0)
        pool[below(32)] = std::make_unique<Sized<8000>>();
}

static const Mode modes[] = {
    {"add_listeners", add_listeners, {}},
    {"pair_peers", pair_peers, {}},
    {"remember_answers", remember_answers, {}},
    {"forget_jobs", forget_jobs, {}},
    {"load_plugins", load_plugins, {}},
    {"shared_maker", shared_maker, {"on_update", "on_insert"}},
    {"live_sessions", live_sessions, {}},
    {"rehash_table", rehash_table, {}},
    {"intern_names", intern_names, {}},
    {"late_cache", late_cache, {}},
    {"double_vector", double_vector, {}},
    {"refill_vector", refill_vector, {}},
    {"lagging_queue", lagging_queue, {}},
    {"make_lazily", make_lazily, {}},
    {"connect_pool", connect_pool, {}},
    {nullptr, nullptr, {}},
};

int main(int count, char **arguments) { return run_named(count, arguments, modes); }
