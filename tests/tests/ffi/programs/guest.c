/* Signals stay the program's: no handler, no mask, and none arrives on a thread of the library's. A connection that its
 * other end has left does not end the program. Two clients know nothing of each other. */

#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static pthread_t main_thread;
static volatile sig_atomic_t strange = 0, taken = 0;

static void take(int signal) {
    (void)signal;
    taken++;
    if (!pthread_equal(pthread_self(), main_thread)) {
        strange++;
    }
}

/* What is done with each signal, as bits of "there is a handler". */
static uint64_t handlers(void) {
    uint64_t found = 0;
    for (int signal = 1; signal < 64; signal++) {
        struct sigaction action;
        if (sigaction(signal, NULL, &action) == 0 && action.sa_handler != SIG_DFL) {
            found |= (uint64_t)1 << signal;
        }
    }
    return found;
}

int main(int count, char **words) {
    main_thread = pthread_self();
    struct sigaction action = {0};
    action.sa_handler = take;
    action.sa_flags = SA_RESTART;
    expect(sigaction(SIGUSR1, &action, NULL) == 0);
    uint64_t before = handlers();
    sigset_t mask_before, mask_after;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);

    bastide_client *client = open_client(count, words), *other = open_client(count, words);
    int descriptor = -1;
    bastide_connection *connection = NULL;
    check(bastide_connect(client, NULL, &descriptor, &connection));
    for (int i = 0; i < 100; i++) {
        expect(kill(getpid(), SIGUSR1) == 0);
        expect(write(descriptor, "x", 1) == 1);
        char back;
        expect(read(descriptor, &back, 1) == 1);
    }
    expect(taken > 0 && strange == 0);

    /* The library writes to a socket that nobody reads from any more. */
    static char block[1 << 16];
    for (int i = 0; i < 20; i++) {
        int gone = -1;
        bastide_connection *left = NULL;
        check(bastide_connect(other, NULL, &gone, &left));
        expect(write(gone, block, sizeof block) > 0);
        close(gone);
        int ended = 0;
        bastide_error_free(bastide_connection_wait(left, 60000, &ended));
        expect(bastide_connection_reason(left) != NULL);
        bastide_connection_free(left);
    }

    bastide_statistics of_one, of_other;
    check(bastide_client_close(other, 10000, NULL));
    check(bastide_client_statistics(other, &of_other, sizeof of_other));
    bastide_client_free(other);
    expect(write(descriptor, "x", 1) == 1);
    expect(read(descriptor, block, 1) == 1);
    check(bastide_client_statistics(client, &of_one, sizeof of_one));
    expect(of_one.opened == 1 && of_one.sent == 101 && of_other.opened == 20);
    close(descriptor);
    bastide_connection_free(connection);
    bastide_client_free(client);

    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (int signal = 1; signal < 64; signal++) {
        expect(sigismember(&mask_before, signal) == sigismember(&mask_after, signal));
    }
    expect(handlers() == before);
    puts("as before");
    return 0;
}
