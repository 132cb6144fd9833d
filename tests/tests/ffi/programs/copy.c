/* A hundred megabytes there, and back from an echo, at the same time: the sums of both have to be equal. */

#include "common.h"

#include <inttypes.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BYTES = 100 * 1024 * 1024, PIECE = 60001 };

static int descriptor = -1;
static uint64_t sent_sum = 14695981039346656037u;

/* FNV-1a. */
static void add(uint64_t *sum, const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        *sum = (*sum ^ bytes[i]) * 1099511628211u;
    }
}

static void *send_all(void *nothing) {
    static unsigned char piece[PIECE];
    uint64_t state = 88172645463325252u;
    size_t left = BYTES;
    while (left > 0) {
        size_t count = left < PIECE ? left : PIECE;
        for (size_t i = 0; i < count; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            piece[i] = (unsigned char)state;
        }
        add(&sent_sum, piece, count);
        for (size_t at = 0; at < count;) {
            ssize_t now = write(descriptor, piece + at, count - at);
            expect(now > 0);
            at += (size_t)now;
        }
        left -= count;
    }
    expect(shutdown(descriptor, SHUT_WR) == 0);
    return nothing;
}

int main(int count, char **words) {
    bastide_client *client = open_client(count, words);
    bastide_connection *connection = NULL;
    check(bastide_connect(client, NULL, &descriptor, &connection));
    pthread_t sender;
    expect(pthread_create(&sender, NULL, send_all, NULL) == 0);
    static unsigned char piece[PIECE];
    uint64_t sum = 14695981039346656037u;
    size_t left = BYTES;
    while (left > 0) {
        ssize_t now = read(descriptor, piece, left < PIECE ? left : PIECE);
        expect(now > 0);
        add(&sum, piece, (size_t)now);
        left -= (size_t)now;
    }
    pthread_join(sender, NULL);
    close(descriptor);
    int ended = 0;
    check(bastide_connection_wait(connection, 60000, &ended));
    expect(ended == 1 && bastide_connection_reason(connection) != NULL);
    bastide_statistics carried;
    check(bastide_connection_statistics(connection, &carried, sizeof carried));
    printf("%016" PRIx64 " %016" PRIx64 " %" PRIu64 " %" PRIu64 "\n", sent_sum, sum, carried.sent, carried.received);
    bastide_connection_free(connection);
    check(bastide_client_close(client, 10000, NULL));
    bastide_client_free(client);
    return 0;
}
