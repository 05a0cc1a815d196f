package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

func (d *demo) detach(ctx context.Context) (string, error) {
	if err := d.ledger.close(ctx); err != nil {
		return "", err
	}
	if d.broken {
		busy, err := os.Open(d.dataFile(d.engineNode()))
		if err != nil {
			return "", err
		}
		defer busy.Close()
	}
	return fmt.Sprintf("%d rows were acknowledged", len(d.ledger.acked)), d.engineNode().Unmount(ctx, d.volume)
}

func (d *demo) move(ctx context.Context) (string, error) {
	node := d.otherNode()
	if err := node.Mount(ctx, d.volume); err != nil {
		return "", err
	}
	if d.broken {
		database := filepath.Join(node.TargetPath(), filepath.Base(d.ledger.database))
		if out, err := sqlite(ctx, database, "DELETE FROM ledger WHERE n = 7;\n"); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
	rows, err := d.ledger.verify(ctx, node.TargetPath())
	if err != nil {
		return "", err
	}
	if err := d.checkData(ctx, d.dataFile(node)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rows found, PRAGMA integrity_check: ok, SHA-256 of the 1 GiB: ok", rows), node.Unmount(ctx, d.volume)
}

func (d *demo) compareReplicas(ctx context.Context) (string, error) {
	all, err := d.cluster.Copies(ctx, d.volume)
	if err != nil {
		return "", err
	}
	if len(all) != len(d.cluster.Nodes) {
		return "", fmt.Errorf("%d replicas, want %d", len(all), len(d.cluster.Nodes))
	}
	if d.broken {
		if err := scramble(d.replicaNode()); err != nil {
			return "", err
		}
	}
	for _, c := range all[1:] {
		if err := compare(ctx, all[0], c); err != nil {
			return "", err
		}
	}
	result := ""
	var first [32]byte
	for i, c := range all {
		sums, err := c.Sums(ctx)
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = sums.Whole
		}
		if sums.Whole != first {
			return "", fmt.Errorf("the replica on %s has SHA-256 %x, that on %s %x", c.Node.Name, sums.Whole, all[0].Node.Name, first)
		}
		result += fmt.Sprintf("%s  sha256 %x\n", c.Node.Name, sums.Whole)
	}
	return result + "qemu-img compare: identical", nil
}
