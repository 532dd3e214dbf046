// Package pgtest starts a private PostgreSQL server for tests, from the binaries on this machine. The server lives in a temporary folder, in
// memory if there is room, and listens on a Unix socket there. PostgreSQL refuses to run as root, so root runs it as the user nobody.
package pgtest
