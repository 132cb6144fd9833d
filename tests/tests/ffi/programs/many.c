/* Eight threads open COUNT connections each, one after another. Descriptors, threads and handles are as before when the
 * client is closed. */

#include "common.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

enum { THREADS = 8 };

static bastide_client *client = NULL;
static int rounds = 0;

static void *connect_often(void *nothing) {
    for (int i = 0; i < rounds; i++) {
        int descriptor = -1;
        bastide_connection *connection = NULL;
        check(bastide_connect(client, NULL, &descriptor, &connection));
        expect(bastide_connection_id(connection) > 0);
        expect(write(descriptor, "hello", 5) == 5);
        char back[5];
        for (ssize_t at = 0; at < 5;) {
            ssize_t now = read(descriptor, back + at, (size_t)(5 - at));
            expect(now > 0);
            at += now;
        }
        expect(memcmp(back, "hello", 5) == 0);
        close(descriptor);
        bastide_connection_free(connection);
    }
    return nothing;
}

/* Entries of a folder of /proc. */
static int entries(const char *folder) {
    DIR *open = opendir(folder);
    expect(open != NULL);
    int count = 0;
    while (readdir(open) != NULL) {
        count++;
    }
    closedir(open);
    return count;
}

int main(int count, char **words) {
    rounds = atoi(getenv("COUNT"));
    /* The first client of a process makes two descriptors that stay. */
    bastide_client_free(open_client(count, words));
    int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    client = open_client(count, words);
    pthread_t workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        expect(pthread_create(&workers[i], NULL, connect_often, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i], NULL);
    }
    uint64_t leaked = 7;
    check(bastide_client_close(client, 60000, &leaked));
    bastide_statistics carried;
    check(bastide_client_statistics(client, &carried, sizeof carried));
    expect(carried.open == 0);
    expect(entries("/proc/self/fd") == descriptors);
    expect(entries("/proc/self/task") == threads);
    bastide_client_free(client);
    printf("%" PRIu64 " connections, %" PRIu64 " bytes there and %" PRIu64 " back, %" PRIu64 " leaked\n", carried.opened,
           carried.sent, carried.received, leaked);
    return 0;
}
