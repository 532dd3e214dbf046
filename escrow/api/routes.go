package api

import "slices"

// allRoutes returns the table of all operations of the API.
func allRoutes() []route {
	return slices.Concat(agentRoutes(), walletRoutes(), creditRoutes(), escrowRoutes(), chargeRoutes(), quoteRoutes(), termRoutes(), reportRoutes(), webhookRoutes(), receiptRoutes(), healthRoutes())
}
