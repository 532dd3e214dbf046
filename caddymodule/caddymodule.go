// Package caddymodule is Caddy's side of Tallygate, and only that: it reads the configuration, joins the rooms meter, pricing
// and escrow on the path of a request, and offers the admin routes and the subcommands.
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
// `tallygate` in the global options configures the [App], which holds the ledger; the directive `tallygate` serves the API
// ([Handler]); the directive `meter` stands before the provider's handlers and charges for what they answer ([Meter]).
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
	// Both wrap every `handle` of their site, so that there is no free way round a meter at the site's level. The directive
	// that is registered last stands first: tallygate, then meter.
	httpcaddyfile.RegisterDirectiveOrder("meter", httpcaddyfile.After, "encode")
	httpcaddyfile.RegisterDirectiveOrder("tallygate", httpcaddyfile.After, "encode")

	registerCommands()
}
