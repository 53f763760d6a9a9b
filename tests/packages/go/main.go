// Walks a directory with many goroutines, writes what it finds, starts itself, and becomes another user.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Size sums the sizes of the files below a directory.
func Size(root string) (total int64) {
	var wait sync.WaitGroup
	check(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			content, err := os.ReadFile(path)
			check(err)
			atomic.AddInt64(&total, int64(len(content)))
		}()
		return nil
	}))
	wait.Wait()
	return total
}

func main() {
	if len(os.Args) == 1 {
		fmt.Print(os.Getuid(), " ", os.Getgid())
		return
	}
	if Size(os.Args[1]) < 10000 {
		check(fmt.Errorf("%s is too small", os.Args[1]))
	}
	self, err := os.Executable()
	check(err)
	child := exec.Command(self)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	said, err := child.Output()
	check(err)
	if string(said) != "65534 65534" {
		check(fmt.Errorf("the child is %s", said))
	}
	directory, err := os.MkdirTemp("", "walk")
	check(err)
	defer os.RemoveAll(directory)
	file := filepath.Join(directory, "f")
	check(os.WriteFile(file, []byte("x"), 0o600))
	check(os.Chown(file, 7, 8))
	looks, err := os.Lstat(file)
	check(err)
	if owner := looks.Sys().(*syscall.Stat_t); owner.Uid != 7 || owner.Gid != 8 {
		check(fmt.Errorf("owner %d:%d", owner.Uid, owner.Gid))
	}
}
