/* Which link between here and a port of a VM is broken: prints the report, and ends with the number of what is wrong.
 *
 *     cc -o doctor doctor.c $(pkg-config --cflags --libs bastide)
 *     ./doctor target=VM resource-port=22
 */

#include <bastide.h>
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

    bastide_report *report = NULL;
    check(bastide_doctor(client, NULL, &report));
    printf("%s\n", bastide_report_json(report));
    int code = bastide_report_code(report);
    bastide_report_free(report);
    bastide_client_free(client);
    return code;
}
