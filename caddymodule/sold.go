package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/dashboard"
)

// shownTariffs is how many tariffs the page shows, since a catalog has thousands.
const shownTariffs = 100

// writeShop answers with the page of what is sold.
func (h *Handler) writeShop(w http.ResponseWriter, r *http.Request) error {
	release, err := h.app.open(r.Context())
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	defer release()
	return h.shop(r).Write(w)
}

// shop returns what is sold, as the reader of a request reaches it. The ledger is open.
func (h *Handler) shop(r *http.Request) dashboard.Shop {
	rules := h.app.book.Rules()
	shop := dashboard.Shop{Origin: api.Origin(r, isProxied(r)), Prefix: h.Prefix, Currency: h.app.book.Currency(), Open: rules.OpenRegistration, Cards: h.app.cards != nil, Pages: h.pages != nil}
	if rules.Faucet > 0 {
		shop.Faucet = rules.Faucet.String()
	}
	for _, make := range h.app.tariffs(api.TariffQuery{}) {
		if shop.More = len(shop.Tariffs) == shownTariffs; shop.More {
			break
		}
		shop.Tariffs = append(shop.Tariffs, make())
	}
	return shop
}
