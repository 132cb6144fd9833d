/* Signing in by a function of the program's own, and the library's log. Here the token comes from a variable; a program
 * would ask its own store for it.
 *
 *     cc -o credential credential.c $(pkg-config --cflags --libs bastide)
 *     TOKEN=... ./credential name=BASTION resource-group=GROUP target-resource-id=ID resource-port=22
 */

#include <bastide.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

/* Called on a thread of the library's, once for each scope and tenant and shortly before a token's end. */
static void give_token(void *context, bastide_token_call *call) {
    const char *token = context;
    bastide_error *error = NULL;
    if (token != NULL) {
        error = bastide_token_call_give(call, token, (int64_t)time(NULL) + 3600);
    } else {
        error = bastide_token_call_refuse(call, "TOKEN is not set");
    }
    bastide_error_free(error);
}

/* Called when the library has no use for the context any more. */
static void forget_token(void *context) {
    free(context);
    puts("the token is forgotten");
}

static void print_line(void *context, uint32_t level, const char *target, const char *message) {
    (void)context;
    fprintf(stderr, "log %u %s: %s\n", (unsigned)level, target, message);
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
    const char *token = getenv("TOKEN");
    char *copy = token == NULL ? NULL : strdup(token);
    check(bastide_options_set_token_function(options, give_token, copy, forget_token));
    check(bastide_options_set_log_function(options, BASTIDE_LOG_DEBUG, print_line, NULL, NULL));

    bastide_client *client = NULL;
    check(bastide_client_new(options, &client));
    bastide_options_free(options);
    int descriptor = -1;
    bastide_error *error = bastide_connect(client, NULL, &descriptor, NULL);
    if (error == NULL) {
        puts("connected");
        close(descriptor);
    }
    bastide_client_free(client);
    check(error);
    return 0;
}
