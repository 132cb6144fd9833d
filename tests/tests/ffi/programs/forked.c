/* A child that was forked while the library works gets an error for whatever its parent has made, and may make its own;
 * the parent goes on. */

#include "common.h"

#include <sys/wait.h>
#include <unistd.h>

#define FORKED(call) expect(code_of(call) == BASTIDE_ERROR_FORKED)

static int echoes(int descriptor) {
    char back = 0;
    return write(descriptor, "x", 1) == 1 && read(descriptor, &back, 1) == 1 && back == 'x';
}

int main(int count, char **words) {
    bastide_options *options = read_options(count, words);
    bastide_client *client = open_client(count, words);
    bastide_tunnel *tunnel = NULL;
    check(bastide_tunnel_open(client, NULL, &tunnel));
    bastide_connection *connection = NULL;
    int descriptor = -1;
    check(bastide_connect(client, NULL, &descriptor, &connection));
    bastide_error *error = bastide_client_new(NULL, NULL);
    expect(echoes(descriptor));
    fflush(stdout);

    pid_t child = fork();
    expect(child >= 0);
    if (child == 0) {
        int other = 7;
        bastide_event *event = NULL;
        bastide_client *own = NULL;
        bastide_statistics statistics;
        FORKED(bastide_connect(client, NULL, &other, NULL));
        FORKED(bastide_client_next_event(client, -1, &event));
        FORKED(bastide_client_statistics(client, &statistics, sizeof statistics));
        FORKED(bastide_client_close(client, 60000, NULL));
        FORKED(bastide_tunnel_close(tunnel, 60000, NULL));
        FORKED(bastide_connection_wait(connection, -1, &other));
        FORKED(bastide_options_set(options, "name", "b"));
        FORKED(bastide_client_new(options, &own));
        expect(other == 7 && own == NULL && bastide_error_message(error) == NULL);
        bastide_client_free(client);
        bastide_tunnel_free(tunnel);
        bastide_connection_free(connection);
        bastide_options_free(options);
        bastide_error_free(error);

        own = open_client(count, words);
        check(bastide_connect(own, NULL, &other, NULL));
        expect(echoes(other));
        close(other);
        uint64_t leaked = 7;
        check(bastide_client_close(own, 10000, &leaked));
        expect(leaked == 0);
        bastide_client_free(own);
        puts("the child has ended well");
        return 0;
    }
    int status = -1;
    expect(waitpid(child, &status, 0) == child && status == 0);
    expect(echoes(descriptor));
    expect(bastide_error_code(error) == BASTIDE_ERROR_MISUSE);
    close(descriptor);
    bastide_error_free(error);
    bastide_connection_free(connection);
    bastide_tunnel_free(tunnel);
    bastide_options_free(options);
    uint64_t leaked = 7;
    check(bastide_client_close(client, 10000, &leaked));
    expect(leaked == 0);
    bastide_client_free(client);
    puts("the parent goes on");
    return 0;
}
