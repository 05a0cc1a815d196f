// Package canaries plants bugs: each file NAME.edit breaks production code in one
// way that a rule of engine/DESIGN.md forbids, and says who must notice. A checker
// that has never been seen to fail proves nothing.
//
// # Format
//
// An edit is a text file of lines:
//
//	rule: 9                     the number of the rule that is broken
//	breaks: TEXT                one sentence: what the code does wrong now
//	explorer: CONFIG[:SET]      configurations of the explorer that must catch it,
//	                            with other bounds (its flags -config and -set)
//	scenario: NAME [NAME]       scenarios of the simulator that must
//	simulator: SEEDS            its random runs, one of so many must
//	test: PACKAGE NAME          a test that must, where the rule is outside of both
//	quick: yes                  the package's own test shows it, too
//	file: PATH                  the file that the next blocks change
//	<<<<                        the lines up to ==== are replaced by
//	old lines                   those up to >>>>
//	====
//	new lines
//	>>>>
//
// `make canaries` shows them all, and says who caught each and after how many
// events; it fails if one is not caught. Only what a checker or a test says counts:
// not an assertion of the code, nor a crash.
//
// Some guards are doubled: with one of them gone, another keeps the rule. An edit
// then takes both away, and a comment in it says why either would do.
//
// A header may be left out, file: and its blocks may be repeated, and lines that
// begin with # outside of a block are comments. The old lines must occur in the
// file exactly once, as whole lines: when the code moves on, the edit fails loudly
// instead of breaking nothing.
//
// Nothing is written into the tree. The changed files go to a folder of their own,
// and the go command takes them from there (its flag -overlay). The edit
// assertions-off is applied with every other one: production code has assertions
// of its own that would stop a broken engine, and what is to be shown is that the
// outside checkers notice by themselves.
package canaries
