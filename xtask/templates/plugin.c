/* @NAME@: a sign-in plugin of bastide. docs/plugins.md of bastide is the contract. */

#include <stddef.h>
#include <stdlib.h>

#include "bastide_plugin.h"

/* What `open` makes and the other functions are given. */
struct state {
    int signs_in;
};

static void *open_plugin(const bastide_host *host, bastide_call call, const bastide_open_request *request)
{
    struct state *state;

    (void)request;
    /* Read the settings here: host->setting(call, "key"). Good until this returns, so copy what is needed later. */
    state = calloc(1, sizeof *state);
    if (state == NULL)
        host->answer_error(call, BASTIDE_ERROR_INTERNAL, "there is no memory", NULL);
    return state;
}

static void close_plugin(void *state)
{
    free(state);
}

/* For `--auth-type plugin:NAME`; `access_token` is for `--credential plugin:NAME`. */
static void sign_in(void *state, const bastide_host *host, bastide_call call,
                    const bastide_sign_in_request *request)
{
    bastide_sign_in answer = {0};

    ((struct state *)state)->signs_in++;
    answer.size = sizeof answer;
    answer.user = request->user;
    answer.password = host->prompt(
        call, &(bastide_prompt){sizeof(bastide_prompt), BASTIDE_PROMPT_SECRET, "password", NULL, 0});
    /* Without an answer the host says by itself that nobody was there to ask. */
    if (answer.password != NULL)
        host->answer_sign_in(call, &answer);
}

static const bastide_plugin table = {
    BASTIDE_ABI,
    sizeof(bastide_plugin),
    "@NAME@",
    open_plugin,
    close_plugin,
    NULL, /* access_token */
    sign_in,
    NULL, /* sign: with the key of an identity that sign_in has answered */
};

const bastide_plugin *bastide_plugin_v1(void)
{
    return &table;
}
