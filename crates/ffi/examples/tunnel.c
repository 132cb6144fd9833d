/* A local port that leads to a port of a VM, until standard input ends.
 *
 *     cc -o tunnel tunnel.c $(pkg-config --cflags --libs bastide)
 *     ./tunnel name=BASTION resource-group=GROUP target-resource-id=ID resource-port=5432 port=15432
 */

#include <bastide.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(bastide_error *error) {
    if (error == NULL) {
        return;
    }
    fprintf(stderr, "error: %s\n", bastide_error_message(error));
    int code = bastide_error_code(error);
    bastide_error_free(error);
    exit(code);
}

int main(int count, char **words) {
    bastide_options *options = NULL;
    check(bastide_options_new(&options));
    check(bastide_options_use_environment(options));
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (value == NULL) {
            fprintf(stderr, "error: '%s' is not KEY=VALUE\n", words[i]);
            return 2;
        }
        *value = '\0';
        check(bastide_options_set(options, words[i], value + 1));
    }
    bastide_client *client = NULL;
    check(bastide_client_new(options, &client));
    bastide_options_free(options);

    bastide_tunnel *tunnel = NULL;
    check(bastide_tunnel_open(client, NULL, &tunnel));
    printf("%s\n", bastide_tunnel_address(tunnel));
    fflush(stdout);
    while (getchar() != EOF) {
    }

    bastide_statistics carried;
    check(bastide_tunnel_statistics(tunnel, &carried, sizeof carried));
    printf("%" PRIu64 " connections, %" PRIu64 " bytes sent, %" PRIu64 " received\n", carried.opened, carried.sent,
           carried.received);
    uint64_t leaked = 0;
    check(bastide_tunnel_close(tunnel, 10000, &leaked));
    bastide_tunnel_free(tunnel);
    check(bastide_client_close(client, 10000, NULL));
    bastide_client_free(client);
    return leaked == 0 ? 0 : 1;
}
