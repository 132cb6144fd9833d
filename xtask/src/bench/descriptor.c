/* Streams over descriptors of the library, or over sockets to a port of loopback; prints 10^6 bytes a second.
 *
 *     descriptor up|down CONNECTIONS MILLISECONDS loopback=PORT
 *     descriptor up|down CONNECTIONS MILLISECONDS KEY=VALUE...
 *
 * Counted is a window in the middle: neither the set-up nor the end, only the steady state.
 */

#include "common.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* As the load of the other rows has them (load.rs). */
enum { CHUNK = 256 * 1024, WARM_UP = 300, MOST = 64 };

static atomic_bool stop;
static atomic_uint_fast64_t moved;
static int upwards;

static void *stream(void *descriptor) {
    int fd = *(int *)descriptor;
    unsigned char *buffer = malloc(CHUNK);
    expect(buffer != NULL);
    memset(buffer, 0x5A, CHUNK);
    while (!stop) {
        ssize_t now = upwards ? write(fd, buffer, CHUNK) : read(fd, buffer, CHUNK);
        if (now <= 0) {
            break;
        }
        moved += (uint64_t)now;
    }
    free(buffer);
    return NULL;
}

static void wait_for(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int to_port(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    expect(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    expect(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    return fd;
}

int main(int count, char **words) {
    int connections = count > 4 ? atoi(words[2]) : 0;
    if (connections < 1 || connections > MOST) {
        fprintf(stderr, "usage: descriptor up|down CONNECTIONS MILLISECONDS KEY=VALUE...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    upwards = strcmp(words[1], "up") == 0;
    const char *loopback = "loopback=";
    const char *port = strncmp(words[4], loopback, strlen(loopback)) == 0 ? words[4] + strlen(loopback) : NULL;
    bastide_client *client = port == NULL ? open_client(count - 3, words + 3) : NULL;
    int descriptors[MOST];
    pthread_t threads[MOST];
    for (int i = 0; i < connections; i++) {
        if (port == NULL) {
            check(bastide_connect(client, NULL, &descriptors[i], NULL));
        } else {
            descriptors[i] = to_port(port);
        }
    }
    for (int i = 0; i < connections; i++) {
        expect(pthread_create(&threads[i], NULL, stream, &descriptors[i]) == 0);
    }
    wait_for(WARM_UP);
    uint64_t before = moved;
    double from = seconds();
    wait_for(atol(words[3]));
    uint64_t after = moved;
    double to = seconds();
    stop = 1;
    for (int i = 0; i < connections; i++) {
        /* Wakes its thread. */
        shutdown(descriptors[i], SHUT_RDWR);
        pthread_join(threads[i], NULL);
        close(descriptors[i]);
    }
    if (client != NULL) {
        check(bastide_client_close(client, 10000, NULL));
        bastide_client_free(client);
    }
    printf("%f\n", (double)(after - before) / (to - from) / 1e6);
    return after > before ? 0 : 1;
}
