package ledger

// Held returns how many accounts have money set aside by holds of this process, and how much that is in all. It looks at the accounts in
// memory only, so its cost does not grow with the ledger. For metrics: the accounts are read one after the other.
func (l *Ledger) Held() (accounts int, amount Amount) {
	for i := range l.memory.shards {
		n, held := l.memory.shards[i].holding()
		accounts, amount = accounts+n, amount+held
	}
	return accounts, amount
}

func (s *shard) holding() (accounts int, amount Amount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		if p.held > 0 {
			accounts, amount = accounts+1, amount+p.held
		}
	}
	return accounts, amount
}
