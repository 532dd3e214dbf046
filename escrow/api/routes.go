package api

import "slices"

// allRoutes is the table of all that the API can do.
func allRoutes() []route {
	return slices.Concat(agentRoutes(), walletRoutes(), escrowRoutes(), chargeRoutes(), quoteRoutes(), termRoutes(), reportRoutes(), webhookRoutes(), receiptRoutes())
}
