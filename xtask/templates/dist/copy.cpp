// A hundred megabytes there, and back from an echo, at the same time, in C++17: prints the sums of both directions and
// the bytes of both.

#include <bastide.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

static void check(bastide_error *error) {
    if (error != nullptr) {
        std::fprintf(stderr, "error %d: %s\n", bastide_error_code(error), bastide_error_message(error));
        std::exit(1);
    }
}

static void expect(bool holds, const char *what) {
    if (!holds) {
        std::fprintf(stderr, "not so: %s\n", what);
        std::exit(1);
    }
}

// Adler-32 (RFC 1950).
class Sum {
public:
    void add(const std::vector<unsigned char> &bytes, std::size_t count) {
        for (std::size_t at = 0; at < count; at++) {
            low = (low + bytes[at]) % 65521;
            high = (high + low) % 65521;
        }
    }
    std::uint32_t value() const { return high << 16 | low; }

private:
    std::uint32_t low = 1, high = 0;
};

template <auto free> struct Free {
    template <typename T> void operator()(T *handle) const { free(handle); }
};

constexpr std::size_t BYTES = 100 * 1024 * 1024, PIECE = 60001;

static void send_all(int descriptor, Sum &sum) {
    std::vector<unsigned char> piece(PIECE);
    std::uint64_t state = 88172645463325252u;
    for (std::size_t left = BYTES; left > 0;) {
        const std::size_t count = left < PIECE ? left : PIECE;
        for (std::size_t at = 0; at < count; at++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            piece[at] = static_cast<unsigned char>(state >> 56);
        }
        sum.add(piece, count);
        for (std::size_t at = 0; at < count;) {
            const ssize_t now = write(descriptor, piece.data() + at, count - at);
            expect(now > 0, "everything is taken");
            at += static_cast<std::size_t>(now);
        }
        left -= count;
    }
    expect(shutdown(descriptor, SHUT_WR) == 0, "one direction can end");
}

int main(int count, char **words) {
    bastide_options *made = nullptr;
    check(bastide_options_new(&made));
    std::unique_ptr<bastide_options, Free<bastide_options_free>> options(made);
    check(bastide_options_use_environment(options.get()));
    for (int i = 1; i < count; i++) {
        const std::string word = words[i];
        const auto end = word.find('=');
        check(bastide_options_set(options.get(), word.substr(0, end).c_str(), word.substr(end + 1).c_str()));
    }
    bastide_client *opened = nullptr;
    check(bastide_client_new(options.get(), &opened));
    std::unique_ptr<bastide_client, Free<bastide_client_free>> client(opened);

    int descriptor = -1;
    check(bastide_connect(client.get(), nullptr, &descriptor, nullptr));
    Sum sent, received;
    std::thread sender(send_all, descriptor, std::ref(sent));
    std::vector<unsigned char> piece(PIECE);
    std::size_t came = 0;
    for (ssize_t now; (now = read(descriptor, piece.data(), piece.size())) > 0;) {
        received.add(piece, static_cast<std::size_t>(now));
        came += static_cast<std::size_t>(now);
    }
    sender.join();
    close(descriptor);
    check(bastide_client_close(client.get(), 10000, nullptr));
    std::printf("%08x %08x %zu %zu\n", sent.value(), received.value(), BYTES, came);
    return 0;
}
