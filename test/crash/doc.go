// Package crash cuts the power of a store at every sync that it makes.
//
// A store runs on a disk in memory that forgets what was not synced: its data file is
// a vfs.MemDevice, its metadata directory a vfs.MemDir, whose comment says what may
// be lost in which combinations. While a scenario runs, the state of everything is
// kept just before each sync: of the data file, of the journal, of the database's
// log, manifest and tables, of markers and of directories. For each of these moments
// the package makes the disks that may be found after a loss of power, opens the
// store on each and compares what it finds with what it must hold.
//
// The scenario goes through what a store does, step by step. Beside it there are
// requests by chance, with the store's jobs in any order.
//
// # Which disks
//
// What may be lost at a moment are the unsynced writes of the data file, those in
// flight, the unsynced writes of every other file, and the unsynced changes of names.
// Of up to Bounds.Few of them all subsets are tried; of more none, all, each alone,
// all but one and Bounds.Samples random ones. Half of the random ones, and with
// Bounds.Torn also each write by itself, are torn between 512-byte sectors, and the
// length of a file may survive without its bytes.
//
// # What must hold
//
// The store opens, and its Check finds no extent owned twice or leaked. What a
// finished flush covered is there; each sector is as of that flush or as some later
// write made it, never a mixture and never another replica's. A cut that was answered
// is there, a valid one has the bytes that it was taken with and every checksum; one
// that was being dropped is gone or whole. A replica whose creation was answered is
// there, one whose deletion was is not. After some of the crashes the store is used,
// killed and opened again.
package crash
