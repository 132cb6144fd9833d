/* Each function with NULL, with handles that are none any more, and in the wrong place: an error each, and no crash. */

#include "common.h"

#include <unistd.h>

#define MISUSE(call) expect(code_of(call) == BASTIDE_ERROR_MISUSE)
#define USAGE(call) expect(code_of(call) == BASTIDE_ERROR_USAGE)

static void take_call(void *context, bastide_token_call *call) {
    (void)context;
    (void)call;
}

static void take_line(void *context, uint32_t level, const char *target, const char *message) {
    (void)context;
    (void)level;
    (void)target;
    (void)message;
}

static int finalized = 0;

static void finalize(void *context) {
    (void)context;
    finalized++;
}

/* What is asked of Azure ends up here, where nothing may wait and the call can be answered once. */
static bastide_client *asking = NULL;
static bastide_token_call *past = NULL;

static void answer(void *context, bastide_token_call *call) {
    (void)context;
    int descriptor = 7;
    MISUSE(bastide_connect(asking, NULL, &descriptor, NULL));
    MISUSE(bastide_client_close(asking, 1000, NULL));
    expect(descriptor == 7);
    expect(strstr(bastide_token_call_scope(call), "/.default") != NULL);
    expect(bastide_token_call_claims(call) == NULL);
    (void)bastide_token_call_tenant(call);
    expect(bastide_token_call_is_fresh(call) == 0);
    MISUSE(bastide_token_call_give(call, NULL, 4102444800));
    MISUSE(bastide_token_call_give(call, "", 4102444800));
    MISUSE(bastide_token_call_give(call, "token", 0));
    MISUSE(bastide_token_call_give(call, "token", INT64_MIN));
    MISUSE(bastide_token_call_refuse(call, NULL));
    check(bastide_token_call_refuse(call, "on purpose"));
    MISUSE(bastide_token_call_refuse(call, "again"));
    MISUSE(bastide_token_call_give(call, "token", 4102444800));
    past = call;
}

static void with_null(void) {
    int descriptor = 7;
    uint64_t leaked = 7;
    bastide_statistics statistics = {7, 7, 7, 7};
    bastide_options *options = NULL;
    bastide_client *client = NULL;
    bastide_tunnel *tunnel = NULL;
    bastide_event *event = NULL;

    expect(bastide_version()[0] != '\0');
    expect(bastide_error_code(NULL) == 0);
    expect(bastide_error_message(NULL) == NULL && bastide_error_hint(NULL) == NULL);
    expect(bastide_error_request_id(NULL) == NULL);
    bastide_error_free(NULL);

    MISUSE(bastide_options_new(NULL));
    MISUSE(bastide_options_set(NULL, "name", "b"));
    MISUSE(bastide_options_use_environment(NULL));
    MISUSE(bastide_options_set_token_function(NULL, take_call, NULL, finalize));
    MISUSE(bastide_options_set_log_function(NULL, BASTIDE_LOG_INFO, take_line, NULL, finalize));
    bastide_options_free(NULL);
    check(bastide_options_new(&options));
    MISUSE(bastide_options_set(options, NULL, "b"));
    MISUSE(bastide_options_set(options, "name", NULL));
    MISUSE(bastide_options_set(options, "name", "\xff"));
    USAGE(bastide_options_set(options, "names", "b"));
    USAGE(bastide_options_set(options, "retries", "many"));
    MISUSE(bastide_options_set_token_function(options, NULL, NULL, finalize));
    MISUSE(bastide_options_set_log_function(options, BASTIDE_LOG_INFO, NULL, NULL, finalize));
    MISUSE(bastide_options_set_log_function(options, 5, take_line, NULL, finalize));
    expect(finalized == 0);
    check(bastide_options_set_token_function(options, take_call, NULL, finalize));
    check(bastide_options_set_token_function(options, take_call, NULL, NULL));
    expect(finalized == 1);
    check(bastide_options_set_log_function(options, BASTIDE_LOG_INFO, take_line, NULL, finalize));
    bastide_options_free(options);
    expect(finalized == 2);

    expect(bastide_token_call_scope(NULL) == NULL && bastide_token_call_tenant(NULL) == NULL);
    expect(bastide_token_call_claims(NULL) == NULL && bastide_token_call_is_fresh(NULL) == 0);
    MISUSE(bastide_token_call_give(NULL, "token", 4102444800));
    MISUSE(bastide_token_call_refuse(NULL, "no"));

    MISUSE(bastide_client_new(NULL, NULL));
    MISUSE(bastide_client_next_event(NULL, 0, &event));
    MISUSE(bastide_client_statistics(NULL, &statistics, sizeof statistics));
    MISUSE(bastide_client_close(NULL, 1000, &leaked));
    bastide_client_free(NULL);
    check(bastide_client_new(NULL, &client));
    MISUSE(bastide_client_next_event(client, 0, NULL));
    MISUSE(bastide_client_statistics(client, NULL, sizeof statistics));
    MISUSE(bastide_client_statistics(client, &statistics, 7));
    MISUSE(bastide_connect(NULL, NULL, &descriptor, NULL));
    MISUSE(bastide_connect(client, NULL, NULL, NULL));
    USAGE(bastide_connect(client, NULL, &descriptor, NULL));
    MISUSE(bastide_tunnel_open(NULL, NULL, &tunnel));
    MISUSE(bastide_tunnel_open(client, NULL, NULL));
    USAGE(bastide_tunnel_open(client, NULL, &tunnel));
    MISUSE(bastide_doctor(client, NULL, NULL));
    USAGE(bastide_doctor(client, NULL, &(bastide_report *){NULL}));
    expect(descriptor == 7 && leaked == 7 && statistics.sent == 7 && tunnel == NULL && event == NULL);
    check(bastide_client_statistics(client, &statistics, sizeof(uint64_t)));
    expect(statistics.opened == 0 && statistics.sent == 7);
    bastide_client_free(client);

    expect(bastide_connection_id(NULL) == 0 && bastide_connection_reason(NULL) == NULL);
    MISUSE(bastide_connection_statistics(NULL, &statistics, sizeof statistics));
    MISUSE(bastide_connection_wait(NULL, 0, &descriptor));
    bastide_connection_free(NULL);
    expect(bastide_tunnel_port(NULL) == 0 && bastide_tunnel_address(NULL) == NULL);
    MISUSE(bastide_tunnel_statistics(NULL, &statistics, sizeof statistics));
    MISUSE(bastide_tunnel_close(NULL, 1000, NULL));
    bastide_tunnel_free(NULL);
    bastide_report *report = NULL;
    MISUSE(bastide_doctor(NULL, NULL, &report));
    expect(report == NULL && bastide_report_code(NULL) == 0 && bastide_report_json(NULL) == NULL);
    bastide_report_free(NULL);
    expect(bastide_event_name(NULL) == NULL && bastide_event_json(NULL) == NULL);
    expect(bastide_event_connection(NULL) == 0);
    bastide_event_free(NULL);
}

static void with_what_is_gone(int count, char **words) {
    bastide_statistics statistics;
    bastide_event *event = NULL;
    int descriptor = 7;
    bastide_client *client = open_client(count, words);

    /* Of another kind. */
    MISUSE(bastide_options_set((bastide_options *)client, "name", "b"));
    MISUSE(bastide_tunnel_close((bastide_tunnel *)client, 1000, NULL));
    expect(bastide_error_code((bastide_error *)client) == BASTIDE_ERROR_MISUSE);
    bastide_event_free((bastide_event *)client);
    MISUSE(bastide_client_statistics((bastide_client *)&statistics, &statistics, sizeof statistics));

    check(bastide_client_close(client, 1000, NULL));
    expect(code_of(bastide_client_close(client, 1000, NULL)) == BASTIDE_ERROR_CLOSED);
    expect(code_of(bastide_connect(client, NULL, &descriptor, NULL)) == BASTIDE_ERROR_CLOSED);
    expect(code_of(bastide_client_next_event(client, -1, &event)) == BASTIDE_ERROR_CLOSED);
    check(bastide_client_statistics(client, &statistics, sizeof statistics));
    bastide_client_free(client);
    bastide_client_free(client);
    MISUSE(bastide_client_close(client, 1000, NULL));
    MISUSE(bastide_connect(client, NULL, &descriptor, NULL));

    bastide_error *error = bastide_client_new(NULL, NULL);
    expect(strcmp(bastide_error_message(error), "the place for the client is NULL") == 0);
    bastide_error_free(error);
    bastide_error_free(error);
    expect(bastide_error_message(error) == NULL);
}

static void in_the_wrong_place(int count, char **words) {
    bastide_options *options = read_options(count, words);
    check(bastide_options_set_token_function(options, answer, NULL, finalize));
    finalized = 0;
    check(bastide_client_new(options, &asking));
    bastide_options_free(options);
    int descriptor = 7;
    bastide_error *error = bastide_connect(asking, NULL, &descriptor, NULL);
    expect(bastide_error_code(error) == BASTIDE_ERROR_SIGN_IN);
    expect(strstr(bastide_error_message(error), "on purpose") != NULL);
    expect(bastide_error_hint(error) != NULL);
    bastide_error_free(error);
    expect(past != NULL && bastide_token_call_scope(past) == NULL);
    MISUSE(bastide_token_call_give(past, "too late", 4102444800));
    expect(finalized == 0);
    bastide_client_free(asking);
    expect(finalized == 1);
}

int main(int count, char **words) {
    with_null();
    with_what_is_gone(count, words);
    in_the_wrong_place(count, words);
    puts("nothing has crashed");
    return 0;
}
