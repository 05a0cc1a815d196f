// Package postgresql runs a PostgreSQL server of its own for a test program: as
// PostgreSQL's user, with pages that have checksums, reached by a socket in a directory
// of the program's.
//
//	server, err := postgresql.New(home)
//	err = server.Initialise(ctx, mountPoint)
//	err = server.Start(ctx)
//	rows, err := server.Query(ctx, "SELECT 1")
//	err = server.Stop(ctx)
//
// A Server has one goroutine while it runs, which reaps it; Stop and Kill end it. If this
// process dies, the kernel ends the server with it.
package postgresql
