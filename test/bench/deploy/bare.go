package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
)

// engine is the bare Docker API, used as a careful person would use it: eight at a time.
type engine struct {
	api   *client.Client
	image string
}

const atATime = 8

func newEngine(ctx context.Context, archive string) (*engine, error) {
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, "docker", "load", "-q")
	cmd.Stdin = file
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("docker load: %w", err)
	}
	// An image that had the name before is told of first.
	_, name, found := strings.Cut(string(out), "Loaded image: ")
	if !found {
		return nil, fmt.Errorf("docker load said %q, and no image's name", out)
	}
	return &engine{api: api, image: strings.TrimSpace(name)}, nil
}

// run creates and starts count containers with the quotas that the zone gives its instances, and says how long that took.
func (e *engine) run(ctx context.Context, count int, network string) (ids []string, took time.Duration, err error) {
	pids := int64(1024)
	begin := time.Now()
	ids = make([]string, count)
	errs := make([]error, count)
	var group sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i := range count {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			config := &container.Config{Image: e.image, Labels: map[string]string{"mammoth.bench": "bare"}}
			host := &container.HostConfig{
				NetworkMode: container.NetworkMode(network),
				SecurityOpt: []string{"no-new-privileges"},
				Resources:   container.Resources{NanoCPUs: 1e8, Memory: 64 << 20, MemorySwap: 64 << 20, PidsLimit: &pids},
			}
			if network == "bridge" {
				config.ExposedPorts = nat.PortSet{"8080/tcp": {}}
				host.PortBindings = nat.PortMap{"8080/tcp": {{HostIP: "127.0.0.1"}}}
			} else {
				config.Env = []string{"PORT=" + strconv.Itoa(41000+i)}
			}
			created, err := e.api.ContainerCreate(ctx, config, host, nil, nil, "")
			if err == nil {
				ids[i] = created.ID
				err = e.api.ContainerStart(ctx, created.ID, container.StartOptions{})
			}
			errs[i] = err
		})
	}
	group.Wait()
	took = time.Since(begin)
	for _, one := range errs {
		if one != nil {
			err = fmt.Errorf("bare docker: %w", one)
		}
	}
	return ids, took, err
}

func (e *engine) remove(ctx context.Context, ids []string) {
	var group sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for _, id := range ids {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if id != "" {
				_ = e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true})
			}
		})
	}
	group.Wait()
}

func (e *engine) kill(ctx context.Context, id string) error {
	return e.api.ContainerKill(ctx, id, "KILL")
}

func cores() int { return runtime.NumCPU() }

func trim(text []byte) string { return strings.TrimSpace(string(text)) }

// field reads "name : value" from a file of such lines.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// memory reads a process's resident and proportional set size in bytes.
func memory(pid int) (resident, proportional int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	amount := func(name string) int64 {
		kib, _ := strconv.ParseInt(strings.TrimSuffix(field(string(text), name), " kB"), 10, 64)
		return kib << 10
	}
	return amount("Rss"), amount("Pss"), nil
}
