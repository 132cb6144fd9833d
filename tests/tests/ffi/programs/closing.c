/* A client that is closed ends whoever waits in it: for an event, for the end of a connection, for bytes. */

#include "common.h"

#include <pthread.h>
#include <unistd.h>

static bastide_client *client = NULL;
static bastide_connection *connection = NULL;
static int descriptor = -1;
static pthread_barrier_t ready;

static void *wait_for_events(void *nothing) {
    pthread_barrier_wait(&ready);
    for (;;) {
        bastide_event *event = NULL;
        bastide_error *error = bastide_client_next_event(client, -1, &event);
        if (error != NULL) {
            expect(code_of(error) == BASTIDE_ERROR_CLOSED);
            return nothing;
        }
        expect(bastide_event_name(event) != NULL);
        bastide_event_free(event);
    }
}

static void *wait_for_the_end(void *nothing) {
    pthread_barrier_wait(&ready);
    int ended = 7;
    bastide_error *error = bastide_connection_wait(connection, -1, &ended);
    expect(error == NULL ? ended == 1 : code_of(error) == BASTIDE_ERROR_CLOSED);
    return nothing;
}

static void *wait_for_bytes(void *nothing) {
    pthread_barrier_wait(&ready);
    char byte;
    expect(read(descriptor, &byte, 1) == 0);
    return nothing;
}

int main(int count, char **words) {
    client = open_client(count, words);
    check(bastide_connect(client, NULL, &descriptor, &connection));
    int ended = 7;
    check(bastide_connection_wait(connection, 0, &ended));
    expect(ended == 0 && bastide_connection_reason(connection) == NULL);
    check(bastide_connection_wait(connection, 20, &ended));
    expect(ended == 0);
    expect(pthread_barrier_init(&ready, NULL, 4) == 0);
    pthread_t waiting[3];
    expect(pthread_create(&waiting[0], NULL, wait_for_events, NULL) == 0);
    expect(pthread_create(&waiting[1], NULL, wait_for_the_end, NULL) == 0);
    expect(pthread_create(&waiting[2], NULL, wait_for_bytes, NULL) == 0);
    pthread_barrier_wait(&ready);
    uint64_t leaked = 7;
    check(bastide_client_close(client, 10000, &leaked));
    expect(leaked == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(waiting[i], NULL);
    }
    check(bastide_connection_wait(connection, -1, &ended));
    expect(ended == 1 && bastide_connection_reason(connection) != NULL);
    close(descriptor);
    bastide_connection_free(connection);
    bastide_client_free(client);
    puts("everybody was told");
    return 0;
}
