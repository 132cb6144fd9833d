// The same in C++17: handles that free themselves, and errors that are thrown. Sends a line to a VM's port and prints
// what comes back.
//
//     c++ -std=c++17 -o echo echo.cpp $(pkg-config --cflags --libs bastide)
//     ./echo name=BASTION resource-group=GROUP target-resource-id=ID resource-port=7

#include <bastide.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <unistd.h>

class BastideError : public std::runtime_error {
public:
    explicit BastideError(bastide_error *error)
        : std::runtime_error(bastide_error_message(error)), code(bastide_error_code(error)) {
        bastide_error_free(error);
    }
    int code;
};

static void check(bastide_error *error) {
    if (error != nullptr) {
        throw BastideError(error);
    }
}

template <auto free> struct Free {
    template <typename T> void operator()(T *handle) const { free(handle); }
};
using Options = std::unique_ptr<bastide_options, Free<bastide_options_free>>;
using Client = std::unique_ptr<bastide_client, Free<bastide_client_free>>;

int main(int count, char **words) try {
    bastide_options *made = nullptr;
    check(bastide_options_new(&made));
    Options options(made);
    check(bastide_options_use_environment(options.get()));
    for (int i = 1; i < count; i++) {
        const std::string word = words[i];
        const auto end = word.find('=');
        check(bastide_options_set(options.get(), word.substr(0, end).c_str(), word.substr(end + 1).c_str()));
    }
    bastide_client *opened = nullptr;
    check(bastide_client_new(options.get(), &opened));
    Client client(opened);

    int descriptor = -1;
    check(bastide_connect(client.get(), nullptr, &descriptor, nullptr));
    const std::string line = "hello\n";
    if (write(descriptor, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        throw std::runtime_error("the line cannot be sent");
    }
    char byte = 0;
    while (byte != '\n' && read(descriptor, &byte, 1) == 1) {
        std::cout << byte;
    }
    close(descriptor);
    return 0;
} catch (const BastideError &error) {
    std::cerr << "error: " << error.what() << '\n';
    return error.code;
} catch (const std::exception &error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
