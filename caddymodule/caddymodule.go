// Package caddymodule makes Tallygate a plugin of Caddy. It reads the configuration, adapts Caddy's handlers to package gateway, which
// serves metered calls, and adds the admin routes and the subcommands. Import the package for its side effects, in a Caddy build. This
// Caddyfile opens a ledger, serves the API, and charges for an upstream:
//
//	{
//		tallygate {
//			registration open
//			faucet 1.00
//		}
//	}
//
//	:8402 {
//		tallygate
//		handle /search* {
//			meter acme-search 0.001 per call
//			reverse_proxy 127.0.0.1:9001
//		}
//	}
//
// The global option `tallygate` configures the [App], which has the ledger. The directive `tallygate` serves the API ([Handler]). The
// directive `meter` wraps the handlers that come after it, and charges for their answers ([Meter]).
package caddymodule

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(BoltStore{})
	caddy.RegisterModule(Handler{})
	caddy.RegisterModule(Meter{})
	caddy.RegisterModule(adminAPI{})

	httpcaddyfile.RegisterGlobalOption("tallygate", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("meter", parseMeter)
	httpcaddyfile.RegisterDirective("tallygate", parseHandler)
	// Both directives come before every `handle` of their site, so that no request bypasses a meter of the whole site. The directive that
	// is registered last comes first: tallygate, then meter.
	httpcaddyfile.RegisterDirectiveOrder("meter", httpcaddyfile.After, "encode")
	httpcaddyfile.RegisterDirectiveOrder("tallygate", httpcaddyfile.After, "encode")

	registerCommands()
}
