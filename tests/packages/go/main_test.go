package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSize(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "f"), make([]byte, 12), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := Size(root); found != 12 {
		t.Fatal(found)
	}
}
