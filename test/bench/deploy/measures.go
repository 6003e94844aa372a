package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/test/zone"
)

// bench is one run: a zone of separate daemons, and the bare engine beside it.
type bench struct {
	ctx       context.Context
	programs  zone.Programs
	dir       string
	rounds    int
	instances int
	zone      *zone.Split
	bare      *engine
}

func (b *bench) start() error {
	var err error
	if b.bare, err = newEngine(b.ctx, b.programs.Hello); err != nil {
		return err
	}
	output, err := os.Create(filepath.Join(b.dir, "daemons.log"))
	if err != nil {
		return err
	}
	b.zone, err = zone.StartSplit(b.ctx, b.programs, zone.Options{
		Dir: filepath.Join(b.dir, "zone"), Output: output,
		Args: []string{"--cpu", "64", "--memory", "16GiB", "--disk", "32GiB", "--allow-host-network"},
	})
	if err != nil {
		_, _ = output.Seek(0, io.SeekStart)
		text, _ := io.ReadAll(output)
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

func (b *bench) close() error {
	if b.zone == nil {
		return nil
	}
	return b.zone.Purge()
}

// deploy brings up count instances of the warm image and says how long `deploy --wait` took, from its start to its end.
func (b *bench) deploy(name string, count int, more ...string) (time.Duration, error) {
	args := append([]string{
		"deploy", "hello:latest", "--name", name, "--instances", strconv.Itoa(count), "--cpu", "0.1", "--memory", "64MiB", "--disk", "64MiB", "--min-healthy", "0s",
		"--health", "http:/healthz", "--wait",
	}, more...)
	begin := time.Now()
	_, err := b.zone.CLI(b.ctx, args...)
	return time.Since(begin), err
}

// remove ends an app and says how long that took until its last instance was gone.
func (b *bench) remove(name string) (time.Duration, error) {
	begin := time.Now()
	_, err := b.zone.CLI(b.ctx, "app", "rm", name, "--wait")
	return time.Since(begin), err
}

func (b *bench) idle() ([]row, error) {
	if _, err := b.zone.CLI(b.ctx, "image", "push", b.programs.Hello, "hello:latest"); err != nil {
		return nil, err
	}
	// The first deployment loads the image onto the node: what follows is warm.
	if _, err := b.deploy("warm", 1, "--port", "8080"); err != nil {
		return nil, err
	}
	master, err := b.master("warm")
	if err != nil {
		return nil, err
	}
	time.Sleep(10 * time.Second)
	var rows []row
	for _, process := range []struct {
		name   string
		pid    int
		budget int64
	}{
		{"ResourceManager", b.zone.ResourceManager.Pid(), 60 << 20},
		{"NodeManager", b.zone.NodeManager.Pid(), 40 << 20},
		{"application master", master, 20 << 20},
	} {
		resident, _, err := memory(process.pid)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{
			what: "idle resident memory, " + process.name, figure: mib(resident), budget: "≤ " + mib(process.budget), met: resident <= process.budget,
		})
	}
	_, err = b.remove("warm")
	return rows, err
}

// compare alternates between the bare engine and the zone, so that what else the machine does hits both.
func (b *bench) compare(what, network string, budget float64, flags ...string) ([]row, error) {
	var bare, ours, stops []time.Duration
	for round := range b.rounds {
		ids, took, err := b.bare.run(b.ctx, b.instances, network)
		b.bare.remove(b.ctx, ids)
		if err != nil {
			return nil, err
		}
		bare = append(bare, took)
		name := fmt.Sprintf("bench%d", round)
		took, err = b.deploy(name, b.instances, flags...)
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
		if took, err = b.remove(name); err != nil {
			return nil, err
		}
		stops = append(stops, took)
	}
	ratio := float64(median(ours)) / float64(median(bare))
	return []row{
		{
			what:   fmt.Sprintf("%d instances, %s, deploy --wait (%v) / bare Docker API (%v)", b.instances, what, ms(median(ours)), ms(median(bare))),
			figure: fmt.Sprintf("%.2f", ratio), budget: fmt.Sprintf("≤ %.2f", budget), met: ratio <= budget,
		},
		{
			what:   fmt.Sprintf("stop of %d instances, %s, until the last is gone", b.instances, what),
			figure: ms(median(stops)).String(), budget: "≤ 2s", met: median(stops) <= 2*time.Second,
		},
	}, nil
}

func (b *bench) deployBridge() ([]row, error) {
	return b.compare("bridge", "bridge", 1.15, "--port", "8080")
}

func (b *bench) deployHost() ([]row, error) {
	return b.compare("host network", "host", 1.25, "--port", "http=0", "--network", "host")
}

// replacement kills an instance through the engine and waits until its successor is in the registry.
func (b *bench) replacement() ([]row, error) {
	if _, err := b.deploy("kill", 3, "--port", "8080"); err != nil {
		return nil, err
	}
	var bare, ours []time.Duration
	for round := range 2*b.rounds + 1 {
		ids, took, err := b.bare.run(b.ctx, 1, "bridge")
		b.bare.remove(b.ctx, ids)
		if err != nil {
			return nil, err
		}
		bare = append(bare, took)
		// Each instance is killed once: a second failure of the same one would be held back by policy.
		if round >= 3 {
			if round == 3 {
				if _, err := b.remove("kill"); err != nil {
					return nil, err
				}
			}
			name := fmt.Sprintf("kill%d", round)
			if _, err := b.deploy(name, 1, "--port", "8080"); err != nil {
				return nil, err
			}
			took, err = b.killOne(name, 0)
			if err == nil {
				_, err = b.remove(name)
			}
		} else {
			took, err = b.killOne("kill", round)
		}
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
	}
	over := median(ours) - median(bare)
	return []row{{
		what:   fmt.Sprintf("docker kill → replacement healthy in the registry (%v) − bare start (%v)", ms(median(ours)), ms(median(bare))),
		figure: ms(over).String(), budget: "≤ 300ms", met: over <= 300*time.Millisecond,
	}}, nil
}

func (b *bench) killOne(name string, index int) (time.Duration, error) {
	before, err := b.zone.App(b.ctx, name)
	if err != nil {
		return 0, err
	}
	victim := before.Instances[index]
	begin := time.Now()
	if err := b.bare.kill(b.ctx, victim.RuntimeID); err != nil {
		return 0, err
	}
	for time.Since(begin) < time.Minute {
		endpoints, err := b.registry(name)
		if err != nil {
			return 0, err
		}
		for _, endpoint := range endpoints {
			if endpoint.ID == victim.ID && endpoint.ContainerID != victim.ContainerID && endpoint.State == "HEALTHY" {
				return time.Since(begin), nil
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, fmt.Errorf("%s was not replaced within a minute", victim.ID)
}

// reattachment kills the NodeManager under its instances, and one of them while it is away.
func (b *bench) reattachment() ([]row, error) {
	if _, err := b.deploy("stay", b.instances, "--port", "8080"); err != nil {
		return nil, err
	}
	master, err := b.master("stay")
	if err != nil {
		return nil, err
	}
	time.Sleep(5 * time.Second)
	var all, node int64
	for _, pid := range []int{b.zone.ResourceManager.Pid(), b.zone.NodeManager.Pid(), master} {
		_, proportional, err := memory(pid)
		if err != nil {
			return nil, err
		}
		all += proportional
		if pid == b.zone.NodeManager.Pid() {
			node = proportional
		}
	}
	before, err := b.zone.App(b.ctx, "stay")
	if err != nil {
		return nil, err
	}
	b.zone.NodeManager.Kill()
	victim := before.Instances[0]
	if err := b.bare.kill(b.ctx, victim.RuntimeID); err != nil {
		return nil, err
	}
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	if err := b.zone.NodeManager.Start(); err != nil {
		return nil, err
	}
	var attached, replaced time.Duration
	for replaced == 0 || attached == 0 {
		if time.Since(begin) > time.Minute {
			return nil, errors.New("not all instances were found again within a minute")
		}
		endpoints, err := b.registry("stay")
		if err != nil {
			return nil, err
		}
		found := 0
		for _, endpoint := range endpoints {
			if endpoint.State != "HEALTHY" {
				continue
			}
			if endpoint.ID == victim.ID && endpoint.ContainerID != victim.ContainerID {
				replaced = time.Since(begin)
			} else if endpoint.ID != victim.ID {
				found++
			}
		}
		if attached == 0 && found == b.instances-1 {
			reports, err := b.registeredSince(begin)
			if err != nil {
				return nil, err
			}
			if reports {
				attached = time.Since(begin)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	_, err = b.remove("stay")
	return []row{
		{
			what:   fmt.Sprintf("NodeManager + %d instances: our processes together, PSS (NodeManager %s)", b.instances, mib(node)),
			figure: mib(all), budget: "≤ 100MiB", met: all <= 100<<20,
		},
		{
			what: fmt.Sprintf("kill -9 of the NodeManager: all %d re-attached after its restart", b.instances-1), figure: ms(attached).String(),
			budget: "≤ 2s", met: attached <= 2*time.Second,
		},
		{
			what: "… and the one that died meanwhile replaced", figure: ms(replaced).String(), budget: "≤ 3s", met: replaced <= 3*time.Second,
		},
	}, err
}

// master is the process of an app's master.
func (b *bench) master(app string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		work, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if strings.Contains(string(line), "appmaster") && strings.Contains(string(environment), "MAMMOTH_APP="+app+"\x00") && strings.HasPrefix(work, b.dir) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no master of %s runs", app)
}

func mib(bytes int64) string { return fmt.Sprintf("%.1fMiB", float64(bytes)/(1<<20)) }

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
