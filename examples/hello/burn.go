package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"time"
)

const mebibyte = 1 << 20

// burn uses up so much of a resource: seconds of one core, or MiB of memory or disk. The memory stays in use.
func burn(what, amount, path string) error {
	n, err := count(amount)
	if err != nil {
		return err
	}
	switch what {
	case "cpu":
		for end := time.Now().Add(time.Duration(n) * time.Second); time.Now().Before(end); {
		}
		return nil
	case "memory":
		burnt.grow(n)
		fmt.Printf("holds %d MiB of memory\n", n)
		return nil
	case "disk":
		if path == "" {
			path = "burn.dat"
		}
		return burnDisk(path, n)
	}
	return fmt.Errorf("cannot burn %q; it is cpu, memory or disk", what)
}

// ballast is memory that is kept so that the kernel cannot have it back.
type ballast struct {
	mu     sync.Mutex
	blocks [][]byte
}

var burnt ballast

func (b *ballast) grow(mib int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range mib {
		b.blocks = append(b.blocks, noise())
	}
}

// noise is a MiB that neither a kernel nor a file system can make smaller.
func noise() []byte {
	block := make([]byte, mebibyte)
	for i := 0; i < len(block); i += 8 {
		v := rand.Uint64()
		for j := range 8 {
			block[i+j] = byte(v >> (8 * j))
		}
	}
	return block
}

func burnDisk(path string, mib int) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	block := noise()
	for i := range mib {
		if _, err := file.Write(block); err != nil {
			return fmt.Errorf("after %d MiB: %w", i, err)
		}
	}
	fmt.Printf("wrote %d MiB to %s\n", mib, path)
	return nil
}

// fork starts n processes of its own program, one after the other until the kernel refuses, then ends them. It
// tells how many it could start.
func fork(n int) (started int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var children []*exec.Cmd
	defer func() {
		for _, child := range children {
			_ = child.Process.Kill()
		}
		// Only after all were killed, and one by one: a wait holds a thread, and threads count too.
		for _, child := range children {
			_ = child.Wait()
		}
	}()
	for range n {
		child := exec.Command(self, "idle")
		if err := child.Start(); err != nil {
			return len(children), err
		}
		children = append(children, child)
	}
	return len(children), nil
}
