package api

import (
	"slices"
	"strings"
)

// allRoutes returns the table of all operations of the API.
func allRoutes() []route {
	return slices.Concat(agentRoutes(), walletRoutes(), payInRoutes(), depositRoutes(), payoutRoutes(), creditRoutes(), escrowRoutes(), holdRoutes(), chargeRoutes(), quoteRoutes(), termRoutes(), reportRoutes(), invoiceRoutes(), webhookRoutes(), receiptRoutes(), healthRoutes())
}

// HasRoute reports whether the API has a path below /api/v1.
func HasRoute(path string) bool {
	return slices.ContainsFunc(allRoutes(), func(r route) bool {
		if strings.Count(r.path, "/") != strings.Count(path, "/") {
			return false
		}
		parts := strings.Split(path, "/")
		for i, part := range strings.Split(r.path, "/") {
			if part != parts[i] && !strings.HasPrefix(part, "{") {
				return false
			}
		}
		return true
	})
}
