/* What happens to connections, pulled by a thread of its own and printed as lines of JSON.
 *
 *     cc -pthread -o events events.c $(pkg-config --cflags --libs bastide)
 *     ./events name=BASTION resource-group=GROUP target-resource-id=ID resource-port=22
 */

#include <bastide.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(bastide_error *error) {
    if (error == NULL) {
        return;
    }
    fprintf(stderr, "error: %s\n", bastide_error_message(error));
    int code = bastide_error_code(error);
    bastide_error_free(error);
    exit(code);
}

/* Until the client is closed and everything was told. */
static void *print_events(void *client) {
    for (;;) {
        bastide_event *event = NULL;
        bastide_error *error = bastide_client_next_event(client, -1, &event);
        if (error != NULL) {
            bastide_error_free(error);
            return NULL;
        }
        printf("%s\n", bastide_event_json(event));
        bastide_event_free(event);
    }
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
    pthread_t printer;
    if (pthread_create(&printer, NULL, print_events, client) != 0) {
        return 1;
    }

    int descriptor = -1;
    bastide_error *error = bastide_connect(client, NULL, &descriptor, NULL);
    if (error == NULL) {
        char byte;
        if (read(descriptor, &byte, 1) < 0) {
            perror("read");
        }
        close(descriptor);
    } else {
        /* It is among the events, too. */
        bastide_error_free(error);
    }

    check(bastide_client_close(client, 10000, NULL));
    pthread_join(printer, NULL);
    bastide_client_free(client);
    return 0;
}
