// Package steady lets tests that run at the same time share [http.DefaultTransport]. A test package imports it for this effect.
//
// [net/http/httptest.Server.Close] closes the idle connections of [http.DefaultTransport], those to other servers too. A request of another
// test that has just been given such a connection fails: "http: CloseIdleConnections called". The transport does not send it again if it is
// the first one on its connection. So nobody closes the idle connections of the shared transport. Each ends with its server.
package steady

import "net/http"

// transport hides CloseIdleConnections, which [http.Transport] has besides.
type transport struct{ http.RoundTripper }

func init() { http.DefaultTransport = transport{http.DefaultTransport} }
