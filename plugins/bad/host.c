/* A host of a later version: its tables are longer than those that the plugin was built with. Loads a plugin, asks it
 * for a token, and prints that. Built by a test with a header to which fields were appended. */

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bastide_plugin.h"

static void answer_token(bastide_call call, const char *token, uint64_t expires_on)
{
    printf("%llu %s %llu\n", (unsigned long long)call, token, (unsigned long long)expires_on);
}

int main(int count, char **words)
{
    const bastide_plugin *(*symbol)(void);
    const bastide_plugin *plugin;
    bastide_token_request request;
    bastide_host host;
    void *library;

    library = count == 2 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL)
        return 1;
    /* ISO C has no other way from an object to a function. */
    *(void **)&symbol = dlsym(library, "bastide_plugin_v1");
    if (symbol == NULL)
        return 2;
    plugin = symbol();
    /* The plugin's table ends before what this header has appended. */
    if (BASTIDE_HAS(plugin, bastide_plugin, later) || !BASTIDE_HAS(plugin, bastide_plugin, sign))
        return 3;
    memset(&host, 0xff, sizeof host);
    host.abi = BASTIDE_ABI;
    host.size = sizeof host;
    host.answer_token = answer_token;
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.scope = "scope";
    plugin->access_token(NULL, &host, 7, &request);
    return 0;
}
