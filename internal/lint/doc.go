// Package lint holds the rules about Holdfast's own sources that a compiler does not
// know, as tests: who may import whom, calls and words that have no place here,
// package comments, the versions in go.mod, and that the guides name only what
// exists. It has no code outside of its tests.
//
// Each check is a function of a folder. It is run twice: over the module, where it
// must find nothing, and over a small tree in testdata with planted violations,
// where it must find exactly the lines marked `want "…"`, so that no check can go
// blind unnoticed. Sources are parsed one file at a time, without regard to build
// tags; testdata folders and modules inside the module are left out.
package lint
