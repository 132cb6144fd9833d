/* Plugins that break the contract, one for each name of a macro: what tests of the loader load. They are built with
 * -DBAD_... by the tests. */

#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bastide_plugin.h"

#define FOR_EVER 4102444800u

static void good_answer(const bastide_host *host, bastide_call call)
{
    const char *token = host->setting(call, "token");

    host->answer_token(call, token != NULL ? token : "token-of-a-plugin", FOR_EVER);
}

#ifdef BAD_OTHER_THREAD
static const bastide_host *shared_host;
static bastide_call shared_call;

static void *other_thread(void *nothing)
{
    shared_host->answer_token(shared_call, "token", FOR_EVER);
    return nothing;
}
#endif

#ifdef BAD_LATE
/* The host gives a second of grace after the time limit; this comes well after both. */
static void linger(const bastide_host *host, bastide_call call)
{
    const struct timespec moment = {0, 20 * 1000 * 1000};
    int rounds;

    while (!host->cancelled(call))
        nanosleep(&moment, NULL);
    for (rounds = 0; rounds < 75; rounds++)
        nanosleep(&moment, NULL);
}
#endif

static void access_token(void *state, const bastide_host *host, bastide_call call,
                         const bastide_token_request *request)
{
    (void)state;
    (void)request;
    (void)good_answer;
#if defined(BAD_TWICE)
    good_answer(host, call);
    good_answer(host, call);
#elif defined(BAD_LATE)
    linger(host, call);
    good_answer(host, call);
#elif defined(BAD_OTHER_THREAD)
    {
        pthread_t thread;

        shared_host = host;
        shared_call = call;
        if (pthread_create(&thread, NULL, other_thread, NULL) == 0)
            pthread_join(thread, NULL);
    }
#elif defined(BAD_NEVER)
    for (;;)
        pause();
#elif defined(BAD_SILENT)
    (void)host;
    (void)call;
#elif defined(BAD_NULL)
    host->answer_token(call, NULL, FOR_EVER);
#elif defined(BAD_TEXT)
    host->answer_token(call, "\xff\xfe", FOR_EVER);
#elif defined(BAD_OTHER_ANSWER)
    host->answer_signature(call, (const uint8_t *)"signature", 9);
#elif defined(BAD_SHORT_ANSWER)
    {
        bastide_sign_in answer;

        memset(&answer, 0, sizeof answer);
        answer.size = 8;
        host->answer_sign_in(call, &answer);
    }
#elif defined(BAD_STDOUT)
    printf("a line of the plugin's\n");
    fflush(stdout);
    good_answer(host, call);
#elif defined(BAD_OLD_CALL)
    {
        static bastide_call before;

        if (before != 0)
            host->answer_token(before, "token", FOR_EVER);
        before = call;
        host->answer_token(call + 1000000, "token", FOR_EVER);
        good_answer(host, call);
    }
#else
    good_answer(host, call);
#endif
}

const bastide_plugin *bastide_plugin_v1(void)
{
    static bastide_plugin table;

#if defined(BAD_TABLE)
    return NULL;
#endif
    table.abi = BASTIDE_ABI;
    table.size = sizeof table;
    table.name = "bad";
    table.access_token = access_token;
#if defined(BAD_MAJOR)
    table.abi = BASTIDE_ABI + (1u << 16);
#elif defined(BAD_SHORT)
    table.size = 24;
#elif defined(BAD_NO_NAME)
    table.name = NULL;
#endif
    return &table;
}
