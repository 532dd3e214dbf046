package postgres

import (
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
)

const (
	lostPage = 1024 // keys that are looked for at once
	lostLine = 50   // keys in one line of the log
)

// nameLost tells the operator that the database has lost commits, and which of the records that this process knows are not there any more:
// transfers, charges, agents and so on, by their keys. Records that were only changed are not named.
func (s *Store) nameLost(cause error) {
	log := s.options.Logger
	var missing []string
	for keys := range slices.Chunk(s.cache.keys(), lostPage) {
		there, err := s.present(keys)
		if err != nil {
			log.Error("which records are lost can't be found out", "error", err)
			break
		}
		for _, key := range keys {
			if !there[key] {
				missing = append(missing, strconv.Quote(key))
			}
		}
	}
	log.Error("the database has lost what it had confirmed: this gateway takes no operations until it is restarted", "error", cause, "lost", len(missing))
	for names := range slices.Chunk(missing, lostLine) {
		log.Error("these records are lost", "keys", names)
	}
}

// present reports which of some keys have a record in the database, whatever its history is.
func (s *Store) present(keys []string) (map[string]bool, error) {
	r := &snapshot{store: s, since: unknown}
	defer r.end()
	asked := make([][]byte, len(keys))
	for i, key := range keys {
		asked[i] = []byte(key)
	}
	var found []record
	if err := r.ask(func(b *pgx.Batch) { queueGet(b, asked, &found) }); err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(keys))
	for _, f := range found {
		there[string(f.key)] = true
	}
	for _, key := range asked {
		if value, changed := r.tail.get(key); changed {
			there[string(key)] = value != nil
		}
	}
	return there, nil
}
