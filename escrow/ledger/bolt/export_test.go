package bolt

import (
	"io"

	"go.etcd.io/bbolt"
)

// Backup writes the ledger as of now to w, as [Store.BackupFile] does to a file. It returns the number of bytes written.
func (s *Store) Backup(w io.Writer) (n int64, err error) {
	err = s.file.Load().view(func(tx *bbolt.Tx) error {
		n, err = writeTo(tx, w, s.options, nil)
		return err
	})
	return n, err
}
