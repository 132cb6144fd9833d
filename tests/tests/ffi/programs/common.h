/* What the programs of the tests share. */

#ifndef COMMON_H
#define COMMON_H

#include <bastide.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program when something has failed. */
static inline void check(bastide_error *error) {
    if (error != NULL) {
        fprintf(stderr, "error %d: %s\n", (int)bastide_error_code(error), bastide_error_message(error));
        exit(1);
    }
}

/* Ends the program when something else is the case. */
#define expect(condition)                                                                   \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);         \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

/* The code of an error, which is freed. */
static inline int code_of(bastide_error *error) {
    int code = (int)bastide_error_code(error);
    bastide_error_free(error);
    return code;
}

/* Options from words such as name=BASTION. */
static inline bastide_options *read_options(int count, char **words) {
    bastide_options *options = NULL;
    check(bastide_options_new(&options));
    check(bastide_options_use_environment(options));
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        *value = '\0';
        check(bastide_options_set(options, words[i], value + 1));
        *value = '=';
    }
    return options;
}

/* A client with such options. */
static inline bastide_client *open_client(int count, char **words) {
    bastide_options *options = read_options(count, words);
    bastide_client *client = NULL;
    check(bastide_client_new(options, &client));
    bastide_options_free(options);
    return client;
}

#endif
