// Package core has homes.
package core

// mayServe is a home.
//
// Rule 1 (kept): here. See rule 2.
func mayServe() bool { return true }

// moved is a home, too.
//
// Rule 3 (moved): here.
func moved() bool { return mayServe() }

// Unargued is a type.
//
// Rule 4 (unargued): here.
type Unargued struct{}

// early is ahead of its table.
//
// Rule 6 (early): here.
func early() bool { return moved() }

// renamed is called otherwise.
//
// Rule 7 (renamed): here.
func renamed() bool { return early() }

// again claims what has a home.
//
// Rule 1 (kept): here, too. want "rule 1 has a home already"
func again() bool {
	// Rule 3 is not kept in the middle of a function. want "begins a line"
	return renamed()
}

// unlisted is in no table.
//
// Rule 9 (unlisted): here. want "rule 9 is not in the table"
func unlisted() bool { return again() }
