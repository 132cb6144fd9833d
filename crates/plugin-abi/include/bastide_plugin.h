/* What a sign-in plugin of bastide is made of. The contract, with an example, is docs/plugins.md.
 *
 * Text is UTF-8 that ends with NUL; NULL means that there is none. Bytes are a pointer and a length.
 * Whatever a function is given is good until it returns. Nobody frees what another has allocated.
 *
 * Written by `cargo xtask headers` from crates/plugin-abi/src/raw.rs: change that. */

#ifndef BASTIDE_PLUGIN_H
#define BASTIDE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

// Version of these tables: the major number in the upper 16 bits, the minor one in the lower. A host refuses another
// major number. Within one, tables and structs only grow at their end, and `size` says how far they go.
#define BASTIDE_ABI (1 << 16)

// The failure is that nothing is set up to sign in with: the next way to sign in may be tried.
#define BASTIDE_ERROR_UNAVAILABLE 1

// The sign-in, or the key, was refused.
#define BASTIDE_ERROR_REFUSED 2

// Signed in, but a right is missing.
#define BASTIDE_ERROR_RIGHT 3

// What the settings name, such as a key, is not there.
#define BASTIDE_ERROR_NOT_FOUND 4

// The way to a service is broken.
#define BASTIDE_ERROR_NETWORK 5

// A service fails, or asks to wait longer than there is time.
#define BASTIDE_ERROR_SERVICE 6

// This plugin can't give what it is asked for.
#define BASTIDE_ERROR_UNSUPPORTED 7

// The user said no, or the host cancelled the call.
#define BASTIDE_ERROR_CANCELLED 8

// A setting is missing or wrong.
#define BASTIDE_ERROR_SETTINGS 9

// A fault of the plugin itself.
#define BASTIDE_ERROR_INTERNAL 10

// A log line that says that something is wrong, although the call goes on.
#define BASTIDE_LOG_WARN 1

// A log line that helps to find out what is wrong (`bastide -v`).
#define BASTIDE_LOG_INFO 2

// A log line for the author of the plugin (`bastide -vv`).
#define BASTIDE_LOG_DEBUG 3

// Asks for a line that may be seen.
#define BASTIDE_PROMPT_TEXT 1

// Asks for a line that must not be seen, such as a PIN.
#define BASTIDE_PROMPT_SECRET 2

// Asks for one of `choices`.
#define BASTIDE_PROMPT_CHOICE 3

// A flag of a token request: a service has refused the token before, so one from a cache won't do.
#define BASTIDE_TOKEN_FRESH 1

// One call of the host into the plugin, by number. It is good until the function that was called with it returns;
// afterwards, and with any other number, the host's functions do nothing and return 0 or NULL, and `cancelled` 1.
typedef uint64_t bastide_call;

// A question for the user.
typedef struct bastide_prompt {
    // `sizeof(bastide_prompt)`.
    uint32_t size;
    // One of `BASTIDE_PROMPT_…`.
    uint32_t kind;
    // The question, without colon or line end.
    const char *text;
    // What may be chosen, for `BASTIDE_PROMPT_CHOICE`.
    const char *const *choices;
    // How many there are.
    size_t choice_count;
} bastide_prompt;

// What a token has to be good for.
typedef struct bastide_token_request {
    // How many bytes of this struct there are: `sizeof(bastide_token_request)` when the plugin asks.
    uint32_t size;
    // 0 or `BASTIDE_TOKEN_FRESH`.
    uint32_t flags;
    // Such as `https://vault.azure.net/.default`.
    const char *scope;
    // The tenant that has to issue it, or NULL for the default one.
    const char *tenant;
    // Claims that the service has demanded, as JSON, or NULL.
    const char *claims;
    // For an SSH certificate the public key as JSON Web Key (`req_cnf`), otherwise NULL.
    const char *certificate_key;
    // The name of that key (`key_id`), or NULL.
    const char *certificate_key_id;
} bastide_token_request;

// How to sign in to a VM: by a password, by an identity whose key the plugin signs with, or by both.
typedef struct bastide_sign_in {
    // `sizeof(bastide_sign_in)`.
    uint32_t size;
    // 0.
    uint32_t flags;
    // The user name on the VM, or NULL to leave it to the user's SSH configuration.
    const char *user;
    // The password, or NULL.
    const char *password;
    // The public key, as SSH writes it (RFC 4253 §6.6; the base64 part of a `.pub` file, decoded), or NULL.
    const uint8_t *public_key;
    // Its length in bytes.
    size_t public_key_size;
    // An OpenSSH certificate for that key, as SSH writes it, or NULL.
    const uint8_t *certificate;
    // Its length in bytes.
    size_t certificate_size;
    // What the identity is called by `ssh-add -l`, or NULL.
    const char *comment;
} bastide_sign_in;

// A header of a request or an answer.
typedef struct bastide_http_header {
    // Its name.
    const char *name;
    // Its value.
    const char *value;
} bastide_http_header;

// What came back.
typedef struct bastide_http_answer {
    // How many bytes of this struct there are.
    uint32_t size;
    // The status, such as 200.
    uint32_t status;
    // The headers, names in lower case; those whose value is no text are left out.
    const struct bastide_http_header *headers;
    // How many there are.
    size_t header_count;
    // The body, at most 16 MiB.
    const uint8_t *body;
    // Its length in bytes.
    size_t body_size;
} bastide_http_answer;

// A request over HTTPS.
typedef struct bastide_http_request {
    // `sizeof(bastide_http_request)`.
    uint32_t size;
    // 0.
    uint32_t flags;
    // Such as `GET`.
    const char *method;
    // Absolute, with `https`.
    const char *url;
    // All headers but `Host` and `Content-Length`, which the host adds.
    const struct bastide_http_header *headers;
    // How many there are.
    size_t header_count;
    // The body, or NULL.
    const uint8_t *body;
    // Its length in bytes.
    size_t body_size;
} bastide_http_request;

// What the host does for a plugin. The table stays as it is for the rest of the process.
//
// Its functions are called on the thread that the plugin was called on, before that call returns; anywhere else they
// do nothing, and the call fails. What they are given is copied before they return. Text that they return
// belongs to the host and is good until the plugin's function returns.
typedef struct bastide_host {
    // `BASTIDE_ABI` that the host was built with.
    uint32_t abi;
    // How many bytes of this table there are. What is in this version of the header for 1.0 is always there; for
    // what came later ask `BASTIDE_HAS`.
    uint32_t size;
    // The value of a key of `config` in the user's configuration: text as it is, numbers and `true` as they are
    // written, anything else as JSON; NULL if it is not there. After `open` the host warns of keys that were not
    // asked for, so that the user hears of a misspelt one.
    const char *(*setting)(bastide_call call, const char *key);
    // Milliseconds until the host gives this call up. Time in `prompt`, `azure_token` and `https` does not
    // count.
    uint64_t (*remaining_ms)(bastide_call call);
    // 1 once nobody waits for this call any more, otherwise 0. A function that may take long asks now and then, and
    // returns.
    uint32_t (*cancelled)(bastide_call call);
    // Writes a line to the host's log, with one of `BASTIDE_LOG_…`. No secrets.
    void (*log)(bastide_call call, uint32_t level, const char *message);
    // Asks the user. NULL when there is nobody to ask, or the user gives no answer. For a choice it returns the
    // choice's own text.
    const char *(*prompt)(bastide_call call, const struct bastide_prompt *prompt);
    // An access token of the host's own sign-in, so that a plugin for an Azure service needs none. `expires_on`
    // (seconds since 1970) may be NULL. NULL when there is no token.
    const char *(*azure_token)(bastide_call call,
                               const struct bastide_token_request *request,
                               uint64_t *expires_on);
    // Answers `access_token`: a token without `Bearer`, and when it ends in seconds since 1970. For a certificate,
    // the token is the certificate's base64 body.
    void (*answer_token)(bastide_call call, const char *token, uint64_t expires_on);
    // Answers `sign_in`.
    void (*answer_sign_in)(bastide_call call, const struct bastide_sign_in *sign_in);
    // Answers `sign`. For an RSA key the signature as in PKCS #1, as long as the modulus; for ECDSA r and s one after
    // the other, each as long as the curve's field (32, 48 or 66 bytes), as JSON Web Signatures and PKCS #11 have
    // them; for Ed25519 the 64 bytes of RFC 8032.
    void (*answer_signature)(bastide_call call, const uint8_t *signature, size_t size);
    // Answers any call: it failed, with one of `BASTIDE_ERROR_…`. `message` says what failed, in lower case and
    // without a full stop; `hint` says what to do next, or is NULL.
    void (*answer_error)(bastide_call call, uint32_t code, const char *message, const char *hint);
    // Sends a request over HTTPS the way the host sends its own: by the user's proxies, certificate authorities and
    // time limits. Every status is an answer, and no redirect is followed. The answer belongs to the host and is good
    // until the plugin's function returns. NULL when there is none: the host knows why.
    const struct bastide_http_answer *(*https)(bastide_call call, const struct bastide_http_request *request);
} bastide_host;

// What `open` is told.
typedef struct bastide_open_request {
    // How many bytes of this struct there are.
    uint32_t size;
    // 0.
    uint32_t flags;
    // `NAME` of `[plugins.NAME]` in the user's configuration.
    const char *name;
} bastide_open_request;

// Which VM to sign in to.
typedef struct bastide_sign_in_request {
    // How many bytes of this struct there are.
    uint32_t size;
    // 0.
    uint32_t flags;
    // The VM as the user named it: its name or its address.
    const char *vm;
    // The VM's Azure resource id, or NULL if it is known by its address only.
    const char *resource_id;
    // The user name that was asked for by `--username`, or NULL.
    const char *user;
} bastide_sign_in_request;

// What to sign.
typedef struct bastide_sign_request {
    // How many bytes of this struct there are.
    uint32_t size;
    // 0.
    uint32_t flags;
    // `rsa-sha2-256`, `rsa-sha2-512`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521` or
    // `ssh-ed25519` (RFC 8332, 5656, 8709). It says what `data` is hashed by.
    const char *algorithm;
    // The public key to sign for, as `sign_in` has answered it.
    const uint8_t *public_key;
    // Its length in bytes.
    size_t public_key_size;
    // What is signed: not hashed yet.
    const uint8_t *data;
    // Its length in bytes.
    size_t data_size;
} bastide_sign_request;

// What a plugin is: `bastide_plugin_v1` returns a pointer to one, which stays as it is for the rest of the process.
//
// All calls with one state, `open` and `close` among them, come one after another on one thread. A plugin may be opened
// more than once in a process, each time with a thread of its own. A function that is NULL is something that this
// plugin does not do.
//
// A function answers by exactly one `answer_…` of the host before it returns, or by none after `prompt`,
// `azure_token` or `https` has returned NULL: then the host knows by itself what went wrong.
typedef struct bastide_plugin {
    // `BASTIDE_ABI` of the header that the plugin was built with.
    uint32_t abi;
    // `sizeof(bastide_plugin)`.
    uint32_t size;
    // What the plugin is called in messages. Not NULL, and not empty.
    const char *name;
    // Reads settings and makes the state, which the other functions are given; NULL is a state too. It failed if it
    // answered by `answer_error`, or returned NULL after `prompt`, `azure_token` or `https` had returned NULL. Any other
    // answer is wrong here.
    void *(*open)(const struct bastide_host *host,
                  bastide_call call,
                  const struct bastide_open_request *request);
    // Frees the state. It is not called when the process ends in another way than by returning, nor after a call
    // that did not come back.
    void (*close)(void *state);
    // Signs in to Azure: answers by `answer_token`.
    void (*access_token)(void *state,
                         const struct bastide_host *host,
                         bastide_call call,
                         const struct bastide_token_request *request);
    // Signs in to a VM: answers by `answer_sign_in`.
    void (*sign_in)(void *state,
                    const struct bastide_host *host,
                    bastide_call call,
                    const struct bastide_sign_in_request *request);
    // Signs with the key of an identity that `sign_in` has answered with: answers by `answer_signature`.
    void (*sign)(void *state,
                 const struct bastide_host *host,
                 bastide_call call,
                 const struct bastide_sign_request *request);
} bastide_plugin;

/* Whether a struct or table that the other side has made is long enough to have a field. */
#define BASTIDE_HAS(pointer, type, field) \
    ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

#if defined(_WIN32)
#define BASTIDE_EXPORT __declspec(dllexport)
#else
#define BASTIDE_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The one symbol of a plugin. It may be called on any thread, and returns the same table each time. */
BASTIDE_EXPORT const bastide_plugin *bastide_plugin_v1(void);

#ifdef __cplusplus
}
#endif

#endif /* BASTIDE_PLUGIN_H */
