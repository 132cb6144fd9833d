/* bastide for C: connections to virtual machines behind Azure Bastion. docs/languages.md has examples.
 *
 * A function that can fail returns an error, which the caller frees, or NULL; places for answers are written on
 * success alone. Text is UTF-8 that ends with NUL. A pointer may be NULL where it says so; any other is good for
 * what it is used for until the function returns.
 *
 * What a function gives out by a place for a pointer is freed by the ..._free of its kind, once. A handle
 * is a number that is looked up: one that was freed, and one of another kind, is BASTIDE_ERROR_MISUSE. Text that
 * belongs to one is good until it is freed.
 *
 * Everything may be called on any thread. bastide_client_new, bastide_client_next_event, bastide_connect,
 * bastide_doctor and the functions named ..._open, ..._wait and ..._close may wait, and must not be called from a
 * callback: a function of the program's or a finalizer, on whatever thread. bastide_client_free waits, too, except in a
 * callback.
 *
 * Callbacks may run on any thread and several at once, and a slow one makes whoever needs its answer wait. They have to
 * return: neither an exception nor longjmp nor pthread_exit may leave them. A context has to be good until its finalizer
 * was called, once, when nobody has its function any more: that may be after the client was freed, when a function was
 * still being called. Without a finalizer it has to be good as long as the process.
 *
 * After a fork the child gets BASTIDE_ERROR_FORKED for what its parent has made. It may make clients of its own if no
 * other thread of its parent was in a function of the library at that time; else it may only exec (POSIX, fork). What
 * it has inherited, such as descriptors, it keeps open until it closes it or execs.
 *
 * Nothing is printed, no signal handler is installed, and the process never ends because of the library.
 *
 * Written by `cargo xtask headers` from crates/ffi/src/api: change that. */

#ifndef BASTIDE_H
#define BASTIDE_H

#include <stddef.h>
#include <stdint.h>

// A bug or a limit of bastide's own.
#define BASTIDE_ERROR_OURS 1

// An option is missing, unknown or wrong.
#define BASTIDE_ERROR_USAGE 2

// Not signed in, or the sign-in was refused.
#define BASTIDE_ERROR_SIGN_IN 10

// Signed in, but a right is missing.
#define BASTIDE_ERROR_MISSING_RIGHT 11

// The SKU or the settings of the Bastion host refuse it.
#define BASTIDE_ERROR_HOST_REFUSES 12

// Bastion host, VM or subscription is not there, or the VM is off.
#define BASTIDE_ERROR_NOT_THERE 13

// Name resolution, TCP, a proxy or TLS.
#define BASTIDE_ERROR_UNREACHABLE 20

// The Bastion service fails, after retries.
#define BASTIDE_ERROR_BASTION 21

// The VM refused or closed the port.
#define BASTIDE_ERROR_VM 22

// A time limit that an option sets.
#define BASTIDE_ERROR_TIMEOUT 124

// The call was wrong: a pointer that must not be NULL, a handle that was freed before or is of another kind, text that is
// not UTF-8, a function that waits called from a callback.
#define BASTIDE_ERROR_MISUSE 200

// The handle was made in the process that this one was forked from, and is of no use here. Whatever it stands for goes on
// there.
#define BASTIDE_ERROR_FORKED 201

// The client was closed, before the call or while it waited.
#define BASTIDE_ERROR_CLOSED 202

// A log line about something that failed.
#define BASTIDE_LOG_ERROR 0

// A log line that says that something is wrong, although it goes on.
#define BASTIDE_LOG_WARN 1

// A log line about what was done.
#define BASTIDE_LOG_INFO 2

// A log line about how it was done.
#define BASTIDE_LOG_DEBUG 3

// A log line about each step.
#define BASTIDE_LOG_TRACE 4

// Azure as one identity sees it, and what was opened with it. It has two threads of its own, on which no signal arrives,
// and shares nothing with other clients. Its functions may be called on several threads at once.
typedef struct bastide_client bastide_client;

// What is known of a connection besides its bytes. It may be freed at any time: the connection lives as long as its
// descriptor.
typedef struct bastide_connection bastide_connection;

// Why a call failed. Owned by who called: see `bastide_error_free`.
typedef struct bastide_error bastide_error;

// Something that happened: `opened`, `retry`, `closed`, `released`, `error`, `ready`, `stopped`, `code` (a code that the
// user has to enter in a browser to sign in) or `dropped`. There may be others one day.
typedef struct bastide_event bastide_event;

// What a client, a connection or a tunnel is told. It is read when it is used, and can be changed, used again or freed
// afterwards.
typedef struct bastide_options bastide_options;

// What became of each link between here and a port of a VM: sign-in, rights, the Bastion host's settings, the VM's state,
// security groups, DNS, TLS, and a session that is opened and given back. It holds no secret and nobody's name.
typedef struct bastide_report bastide_report;

// One question of a client for an access token. It is good until the function that was called with it returns.
typedef struct bastide_token_call bastide_token_call;

// A local port, or Unix socket, that leads to a port of a VM.
typedef struct bastide_tunnel bastide_tunnel;

// Gets an access token, and answers by one of `bastide_token_call_give` and `bastide_token_call_refuse` before it
// returns. It is called on a thread of the client's, may be called on several at once, and may block for a minute. It
// must not call functions that wait.
typedef void (*bastide_token_function)(void *context, struct bastide_token_call *call);

// Told that a context is not needed any more. It is called once, on any thread.
typedef void (*bastide_finalizer)(void *context);

// Takes a line of the log: one of BASTIDE_LOG_..., the part of bastide that says it, and what it says. Both texts are good
// until it returns. It is called on threads of the client's, on several at once, and should be quick; it must not call
// functions that wait.
typedef void (*bastide_log_function)(void *context, uint32_t level, const char *target, const char *message);

// What was carried so far.
typedef struct bastide_statistics {
    // Connections so far, also those that could not be opened.
    uint64_t opened;
    // Those of them that are not over yet.
    uint64_t open;
    // Bytes to VMs.
    uint64_t sent;
    // Bytes from VMs.
    uint64_t received;
} bastide_statistics;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// One of BASTIDE_ERROR_..., or 0 for NULL. Numbers below 200 are the exit codes of the command line; there may be more
// of them one day.
int32_t bastide_error_code(const struct bastide_error *error);

// What failed, in words for a person, all causes included: good until the error is freed. NULL for NULL.
const char *bastide_error_message(const struct bastide_error *error);

// What to do next: good until the error is freed. NULL where nothing is known.
const char *bastide_error_hint(const struct bastide_error *error);

// The service's id of the request that failed, for a support request: good until the error is freed. NULL where there is
// none.
const char *bastide_error_request_id(const struct bastide_error *error);

// Frees an error and its texts. NULL, and one that was freed before, are left alone.
void bastide_error_free(struct bastide_error *error);

// Makes options that say nothing yet.
struct bastide_error *bastide_options_new(struct bastide_options **options);

// Sets an option. Its key is the long name of a flag of the command line without `--` (`bastide tunnel --help`), and its
// value what the flag is given; a flag that stands alone is `true` or `false`. `target` is the command line's TARGET.
//
// Of a client: `cloud`, `tenant`, `credential`, `client-id`, `exec-command`, `no-cache`, `ca-bundle`, `proxy`,
// `subscription`, `keepalive`. Of connections and tunnels, with those of their client as defaults: `target`,
// `target-resource-id` or `target-ip-address`, `name`, `resource-group`, `resource-port`, `timeout`, `idle-timeout`,
// `max-frame`, `connect-timeout`, `retries`. Of tunnels: `port`, `bind`, `forward` (such as `/PATH.sock:22`, in place of
// `port` and `resource-port`), `allow-other-users`, `prefetch`.
//
// A key in capitals is an environment variable, such as `AZURE_CLIENT_ID` or `HTTPS_PROXY`, that the client sees in
// place of the process's own; `all_proxy`, `http_proxy`, `https_proxy` and `no_proxy` are variables, too.
struct bastide_error *bastide_options_set(struct bastide_options *options,
                                          const char *key,
                                          const char *value);

// Copies the environment of the process, as it is now, into the options: sign-ins of the Azure SDKs, proxies, `HOME`, where
// `bastide login` has left its sign-in. Without it a client sees no environment. Variables that were set by
// `bastide_options_set` stay as they are. No other thread may change the environment meanwhile.
struct bastide_error *bastide_options_use_environment(struct bastide_options *options);

// Has clients sign in to Azure by a function, in place of `credential`. Tokens are cached until shortly before their end.
// `finalizer` may be NULL; if this call fails, nothing is taken over and it is not called.
struct bastide_error *bastide_options_set_token_function(struct bastide_options *options,
                                                         bastide_token_function function,
                                                         void *context,
                                                         bastide_finalizer finalizer);

// Has clients say what they do, up to a level (BASTIDE_LOG_...), to a function. Without one they say it to nobody.
// `finalizer` may be NULL; if this call fails, nothing is taken over and it is not called.
struct bastide_error *bastide_options_set_log_function(struct bastide_options *options,
                                                       uint32_t level,
                                                       bastide_log_function function,
                                                       void *context,
                                                       bastide_finalizer finalizer);

// Frees options. NULL, and what was freed before, are left alone.
void bastide_options_free(struct bastide_options *options);

// What the token is for, such as `https://management.azure.com/.default`: good until the call is over.
const char *bastide_token_call_scope(const struct bastide_token_call *call);

// The tenant that has to issue it: good until the call is over. NULL where any will do.
const char *bastide_token_call_tenant(const struct bastide_token_call *call);

// The claims that a service demands, as JSON: good until the call is over. NULL where it demands none.
const char *bastide_token_call_claims(const struct bastide_token_call *call);

// 1 when a service has refused the token before, so that one from a cache won't do; otherwise 0.
int32_t bastide_token_call_is_fresh(const struct bastide_token_call *call);

// Answers with a token and its end, in seconds since 1970. The token is copied.
struct bastide_error *bastide_token_call_give(struct bastide_token_call *call,
                                              const char *token,
                                              int64_t expires_on);

// Answers that there is no token, and why. The words are shown to the user, and copied.
struct bastide_error *bastide_token_call_refuse(struct bastide_token_call *call, const char *message);

// Makes a client. It signs in when something is asked of Azure, not before. `options` may be NULL.
struct bastide_error *bastide_client_new(const struct bastide_options *options,
                                         struct bastide_client **client);

// The next event, the oldest first; NULL when none comes within so many milliseconds. 0 does not wait, and a negative
// number waits without limit. Up to 1,024 events are kept; when the oldest give way, an event `dropped` counts them.
// After the client was closed what is left comes, and then BASTIDE_ERROR_CLOSED.
struct bastide_error *bastide_client_next_event(struct bastide_client *client,
                                                int64_t milliseconds,
                                                struct bastide_event **event);

// What all connections and tunnels of a client have carried. `size` is `sizeof(bastide_statistics)`.
struct bastide_error *bastide_client_statistics(const struct bastide_client *client,
                                                struct bastide_statistics *statistics,
                                                size_t size);

// Ends everything that was opened with a client, gives its sessions back to the service within so many milliseconds, and
// ends its threads, which may take 3 seconds more; then the client is good for the rest of its events and for
// `bastide_client_free`. `leaked`, which may be NULL, gets how many sessions could not be given back: the service ends
// those by itself after some time. A function of the program's that is being called then goes on, and is finalized when
// it has returned. While one thread closes a client, others are told BASTIDE_ERROR_CLOSED.
struct bastide_error *bastide_client_close(struct bastide_client *client,
                                           uint64_t milliseconds,
                                           uint64_t *leaked);

// Frees a client. One that is open is closed before, which waits up to 10 seconds, and 3 more; in a callback, which must
// not wait, it is cut off: its sessions stay with the service until that, or the next process of this user, ends them.
// NULL, and one that was freed before, are left alone.
void bastide_client_free(struct bastide_client *client);

// Opens a connection to a port of a VM, and waits until the service has opened it. `descriptor` gets a connected socket
// (a stream, closed on exec) that the caller owns: closing it, or exiting, ends the connection and gives its session
// back. Whether anybody listens at the VM's port shows by the first byte alone: where nobody does, the socket ends, and
// `bastide_connection_wait` says why. Bastion knows no half-close: after a `shutdown` of the caller's direction the VM's
// answer has 10 seconds, again and again as long as some of it comes. Writing to a socket that has ended raises SIGPIPE,
// as everywhere, unless the program ignores that.
//
// `options` may be NULL, and `connection` too when nothing more is to be known. There are no such descriptors on
// Windows: open a tunnel there.
struct bastide_error *bastide_connect(struct bastide_client *client,
                                      const struct bastide_options *options,
                                      int *descriptor,
                                      struct bastide_connection **connection);

// The number of a connection, as its events have it; 0 for NULL.
uint64_t bastide_connection_id(const struct bastide_connection *connection);

// What a connection has carried, also after its end. `size` is `sizeof(bastide_statistics)`.
struct bastide_error *bastide_connection_statistics(const struct bastide_connection *connection,
                                                    struct bastide_statistics *statistics,
                                                    size_t size);

// Waits until a connection has ended, at most for so many milliseconds, or without limit for a negative number: `ended`
// gets 1 when it has, and 0 otherwise. A connection that failed has ended with an error: BASTIDE_ERROR_VM, say, when
// nobody listens at the VM's port.
struct bastide_error *bastide_connection_wait(const struct bastide_connection *connection,
                                              int64_t milliseconds,
                                              int *ended);

// How a connection has ended, in words: good until it is freed. NULL as long as it has not.
const char *bastide_connection_reason(const struct bastide_connection *connection);

// Frees what is known of a connection, which goes on. NULL, and what was freed before, are left alone.
void bastide_connection_free(struct bastide_connection *connection);

// Opens a tunnel: `resource-port` is the VM's port, `port` the local one (any free one where it is left out). It returns
// when connections can be opened, which a first session has proven. `options` may be NULL.
struct bastide_error *bastide_tunnel_open(struct bastide_client *client,
                                          const struct bastide_options *options,
                                          struct bastide_tunnel **tunnel);

// The local port; 0 for a Unix socket, and for NULL.
uint16_t bastide_tunnel_port(const struct bastide_tunnel *tunnel);

// Where it listens, such as `127.0.0.1:50022`, or the path of a Unix socket: good until the tunnel is freed. NULL for
// NULL.
const char *bastide_tunnel_address(const struct bastide_tunnel *tunnel);

// What a tunnel has carried. `size` is `sizeof(bastide_statistics)`.
struct bastide_error *bastide_tunnel_statistics(const struct bastide_tunnel *tunnel,
                                                struct bastide_statistics *statistics,
                                                size_t size);

// Ends a tunnel and its connections, and waits at most so many milliseconds until its sessions are given back. `leaked`,
// which may be NULL, gets how many were not given back by then.
struct bastide_error *bastide_tunnel_close(struct bastide_tunnel *tunnel,
                                           uint64_t milliseconds,
                                           uint64_t *leaked);

// Frees a tunnel. One that is open ends, without anybody waiting for it but `bastide_client_close`. NULL, and one that
// was freed before, are left alone.
void bastide_tunnel_free(struct bastide_tunnel *tunnel);

// Its name: good until the event is freed. NULL for NULL.
const char *bastide_event_name(const struct bastide_event *event);

// The number of the connection that it is about; 0 where it is about none, and for NULL.
uint64_t bastide_event_connection(const struct bastide_event *event);

// All of it as an object of JSON, as `bastide tunnel -o json` prints it, name and time included: good until the event is
// freed. NULL for NULL.
const char *bastide_event_json(const struct bastide_event *event);

// Frees an event and its texts. NULL, and one that was freed before, are left alone.
void bastide_event_free(struct bastide_event *event);

// Examines the way to a port of a VM, which the options name as for a connection, as `bastide doctor` does. What is
// broken is no error: the report says it. `options` may be NULL.
struct bastide_error *bastide_doctor(struct bastide_client *client,
                                     const struct bastide_options *options,
                                     struct bastide_report **report);

// 0 when nothing is broken; otherwise one of BASTIDE_ERROR_... for the first broken link. 0 for NULL.
int32_t bastide_report_code(const struct bastide_report *report);

// The report as an object of JSON: `broken` is the name of the first broken link or null, `findings` has an object for
// each link, with `link`, `status` (`ok`, `warning`, `failed`, `skipped`), `milliseconds`, `message`, `causes` and `hint`.
// Good until the report is freed. NULL for NULL.
const char *bastide_report_json(const struct bastide_report *report);

// Frees a report and its text. NULL, and one that was freed before, are left alone.
void bastide_report_free(struct bastide_report *report);

// The version of the library, such as `0.1.0`. It never fails, and nobody frees the text.
const char *bastide_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif /* BASTIDE_H */
