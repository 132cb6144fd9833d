/* A sign-in plugin of bastide in one file: it signs in to a VM with an Ed25519 key of its own, which no other program
 * gets to see. The key is in a PEM file here; with a smart card or a vault, `sign` would ask that instead.
 *
 * It leaves out Azure access tokens (`access_token`) and certificates. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "bastide_plugin.h"

/* An Ed25519 public key as SSH writes it (RFC 8709): two strings, each behind its length. */
#define KIND "ssh-ed25519"
#define KEY_SIZE 32
#define PUBLIC_SIZE (4 + sizeof KIND - 1 + 4 + KEY_SIZE)

struct state {
    EVP_PKEY *key;
    unsigned char public_key[PUBLIC_SIZE];
    char *user;
};

static void close_plugin(void *opened)
{
    struct state *state = opened;

    if (state != NULL) {
        EVP_PKEY_free(state->key);
        free(state->user);
        free(state);
    }
}

/* Texts of the host are good until the plugin's function returns: what is needed later is copied. */
static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copied = malloc(size);

    return copied == NULL ? NULL : memcpy(copied, text, size);
}

static int write_public_key(struct state *state)
{
    unsigned char *to = state->public_key;
    size_t size = KEY_SIZE;

    memset(to, 0, PUBLIC_SIZE);
    to[3] = sizeof KIND - 1;
    memcpy(to + 4, KIND, sizeof KIND - 1);
    to[4 + sizeof KIND - 1 + 3] = KEY_SIZE;
    return EVP_PKEY_id(state->key) == EVP_PKEY_ED25519 &&
           EVP_PKEY_get_raw_public_key(state->key, to + PUBLIC_SIZE - KEY_SIZE, &size) == 1;
}

static void *open_plugin(const bastide_host *host, bastide_call call, const bastide_open_request *request)
{
    const char *path = host->setting(call, "key");
    const char *user = host->setting(call, "user");
    struct state *state;
    FILE *file;

    (void)request;
    if (path == NULL) {
        host->answer_error(call, BASTIDE_ERROR_SETTINGS, "no key is set",
                           "add key = \"/...\", the path of a PEM file, to its config");
        return NULL;
    }
    file = fopen(path, "r");
    if (file == NULL) {
        host->answer_error(call, BASTIDE_ERROR_NOT_FOUND, "the key file cannot be opened", NULL);
        return NULL;
    }
    state = calloc(1, sizeof *state);
    if (state != NULL) {
        state->key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
        state->user = user == NULL ? NULL : copy(user);
    }
    fclose(file);
    if (state == NULL || state->key == NULL || !write_public_key(state)) {
        close_plugin(state);
        host->answer_error(call, BASTIDE_ERROR_SETTINGS, "the key file holds no Ed25519 key in PEM",
                           "`openssl genpkey -algorithm ed25519` makes one");
        return NULL;
    }
    return state;
}

static void sign_in(void *opened, const bastide_host *host, bastide_call call,
                    const bastide_sign_in_request *request)
{
    struct state *state = opened;
    bastide_sign_in answer = {0};

    answer.size = sizeof answer;
    /* The user whom the command line names, then the configuration's, then whatever OpenSSH takes. */
    answer.user = request->user != NULL ? request->user : state->user;
    answer.public_key = state->public_key;
    answer.public_key_size = sizeof state->public_key;
    answer.comment = "example-c";
    host->answer_sign_in(call, &answer);
}

static void sign(void *opened, const bastide_host *host, bastide_call call,
                 const bastide_sign_request *request)
{
    struct state *state = opened;
    unsigned char signature[64];
    size_t size = sizeof signature;
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    if (context != NULL && EVP_DigestSignInit(context, NULL, NULL, NULL, state->key) == 1 &&
        EVP_DigestSign(context, signature, &size, request->data, request->data_size) == 1) {
        host->log(call, BASTIDE_LOG_INFO, "the sign-in is signed");
        host->answer_signature(call, signature, size);
    } else {
        host->answer_error(call, BASTIDE_ERROR_INTERNAL, "OpenSSL does not sign", NULL);
    }
    EVP_MD_CTX_free(context);
}

/* A function that is NULL is something that the plugin does not do. */
static const bastide_plugin table = {
    BASTIDE_ABI, sizeof(bastide_plugin), "example-c", open_plugin, close_plugin, NULL, sign_in, sign,
};

const bastide_plugin *bastide_plugin_v1(void)
{
    return &table;
}
