/* A connection to a port of a VM, as a descriptor: prints the first line that the VM says, such as an SSH server's
 * banner.
 *
 *     cc -o connect connect.c $(pkg-config --cflags --libs bastide)
 *     ./connect name=BASTION resource-group=GROUP target-resource-id=ID resource-port=22
 */

#include <bastide.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends the program when something has failed. */
static void check(bastide_error *error) {
    if (error == NULL) {
        return;
    }
    fprintf(stderr, "error: %s\n", bastide_error_message(error));
    if (bastide_error_hint(error) != NULL) {
        fprintf(stderr, "hint: %s\n", bastide_error_hint(error));
    }
    int code = bastide_error_code(error);
    bastide_error_free(error);
    exit(code);
}

/* Options from words such as name=BASTION; the environment says how to sign in. */
static bastide_options *read_options(int count, char **words) {
    bastide_options *options = NULL;
    check(bastide_options_new(&options));
    check(bastide_options_use_environment(options));
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (value == NULL) {
            fprintf(stderr, "error: '%s' is not KEY=VALUE\n", words[i]);
            exit(2);
        }
        *value = '\0';
        check(bastide_options_set(options, words[i], value + 1));
    }
    return options;
}

int main(int count, char **words) {
    bastide_options *options = read_options(count, words);
    bastide_client *client = NULL;
    check(bastide_client_new(options, &client));
    bastide_options_free(options);

    int descriptor = -1;
    bastide_connection *connection = NULL;
    check(bastide_connect(client, NULL, &descriptor, &connection));

    char byte = 0;
    while (byte != '\n' && read(descriptor, &byte, 1) == 1) {
        putchar(byte);
    }
    close(descriptor);
    bastide_error *error = NULL;
    if (byte != '\n') {
        /* The connection has ended early: why? */
        int ended = 0;
        error = bastide_connection_wait(connection, 10000, &ended);
    }

    /* Gives the session back, whatever has failed. */
    bastide_connection_free(connection);
    check(bastide_client_close(client, 10000, NULL));
    bastide_client_free(client);
    check(error);
    return 0;
}
