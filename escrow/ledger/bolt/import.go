package bolt

import (
	"context"
	"errors"
	"fmt"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Import makes a ledger file of what fill writes into a new store, and checks the books in it. Only then does the file get its name. There
// must be no file at path. So a ledger of any store can be backed up into a file.
func Import(ctx context.Context, path string, o Options, progress ledger.Progress, fill func(ledger.Store) error) (ledger.Report, error) {
	report, err := install(ctx, path, o, progress, func(partial string) error {
		if err := remove(partial); err != nil { // of an earlier try that was killed
			return err
		}
		s, err := Open(partial, o)
		if err != nil {
			return err
		}
		return errors.Join(fill(s), s.Close())
	})
	if err != nil {
		return report, fmt.Errorf("writing %s: %w", path, err)
	}
	return report, nil
}
