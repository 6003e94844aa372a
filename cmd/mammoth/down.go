package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/internal/notes"
	"github.com/mammoth-os/mammoth/internal/wire"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

const (
	// endTimeout is how long everything that a zone has left may take to end.
	endTimeout = 2 * time.Minute
	// endGrace is each container's time between SIGTERM and SIGKILL, maxEnding how many are ended at the same time.
	endGrace  = 10 * time.Second
	maxEnding = 16
)

func (c *upCommands) downCommand() *cobra.Command {
	var dir, dockerHost string
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End what a zone has left running on this machine",
		Long: `Down ends the instances and application masters that an ended zone has left running
on this machine with their control groups, and nothing else. With --purge its folder goes too: apps, images,
logs, everything, and the images that it has brought into Docker.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("find %s: %w", dir, err)
			}
			folders, err := zoneFolders(path)
			if err != nil {
				return err
			}
			for _, folder := range folders {
				unlock, err := lockFolder(folder, "daemon")
				if err != nil {
					return err
				}
				defer unlock()
			}
			if err := c.endFolder(path, dockerHost); err != nil || !purge {
				return err
			}
			if err := purgeImages(folders, dockerHost); err != nil {
				return err
			}
			return c.purgeFolders(path, folders)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "/var/lib/mammoth", "the zone's folder")
	flags.StringVar(&dockerHost, "docker-host", "", "where the Docker Engine listens (default: the zone's)")
	flags.BoolVar(&purge, "purge", false, "delete the zone's folder too")
	must(cmd.MarkFlagDirname("dir"))
	return cmd
}

// endFolder ends what the zone of a folder has left running. The zone must not be running.
func (c *upCommands) endFolder(dir, dockerHost string) error {
	folders, err := zoneFolders(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	nginx.End(filepath.Join(dir, nginxFolder))
	ended := remains{}
	for _, folder := range folders {
		s, ok, err := readNode(folder)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if dockerHost != "" {
			s.dockerHost = dockerHost
		}
		stop := while(quietTime, func() {
			fmt.Fprintf(c.err, "%s: what runs there is being ended, and has its grace to do so\n", s.node)
		})
		of, err := endNode(ctx, s)
		stop()
		ended.add(of)
		if err != nil {
			return fmt.Errorf("end what runs on %s: %w", s.node, err)
		}
	}
	_, err = fmt.Fprintf(c.out, "%s and %s ended\n", plural(ended.instances, "instance"), plural(ended.masters, "application master"))
	return err
}

// purgeImages removes the images of a zone from the engines of its nodes.
func purgeImages(folders []string, dockerHost string) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	for _, folder := range folders {
		s, ok, err := readNode(folder)
		if err != nil {
			return err
		}
		if !ok || s.runtime != runtimeDocker {
			continue
		}
		if dockerHost != "" {
			s.dockerHost = dockerHost
		}
		e, err := s.open("", slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		_, err = e.docker.RemoveImages(ctx)
		if err := errors.Join(err, e.close()); err != nil {
			return fmt.Errorf("remove the images that %s brought into Docker: %w", s.node, err)
		}
	}
	return nil
}

// purgeFolders deletes the folders of a zone.
func (c *upCommands) purgeFolders(dir string, folders []string) error {
	for _, folder := range slices.Backward(folders) {
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("delete what the zone left: %w", plainPathError(err))
		}
	}
	// A folder of daemons that were started separately may have other content.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_, err := fmt.Fprintf(c.out, "%s is emptied of the zone, and stays for what else is in it\n", dir)
		return err
	}
	_, err := fmt.Fprintf(c.out, "%s is deleted\n", dir)
	return err
}

// zoneFolders lists the folder of a whole zone and those of its daemons, or those of daemons directly below dir that were
// started separately. It is an error if there are none, so that nothing else is ever deleted.
func zoneFolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, plainPathError(err)
	}
	var folders []string
	add := func(folder string, marks ...string) {
		for _, mark := range marks {
			if notes.Exist(filepath.Join(folder, mark)) {
				folders = append(folders, folder)
				return
			}
		}
	}
	add(dir, upFile, zoneFile, nodeFile)
	for _, entry := range entries {
		if entry.IsDir() {
			add(filepath.Join(dir, entry.Name()), zoneFile, nodeFile)
		}
	}
	if len(folders) == 0 {
		return nil, fmt.Errorf("%s is not the folder of a zone", dir)
	}
	return folders, nil
}

// readNode returns the settings of a folder's node, if it is a node's.
func readNode(folder string) (engineSettings, bool, error) {
	path := filepath.Join(folder, nodeFile)
	if !notes.Exist(path) {
		return engineSettings{}, false, nil
	}
	var noted nodeNotes
	if err := readNotes(path, &noted); err != nil {
		return engineSettings{}, false, err
	}
	return engineSettings{
		dir: folder, zone: noted.Zone, node: noted.Node, runtime: noted.Runtime, dockerHost: noted.DockerHost, portRange: "20000-29999",
	}, true, nil
}

// remains counts what a zone has left.
type remains struct{ instances, masters int }

func (r *remains) add(other remains) {
	r.instances += other.instances
	r.masters += other.masters
}

func (r *remains) count(container runtime.Container) {
	if container.Labels["mammoth.role"] == "master" {
		r.masters++
		return
	}
	r.instances++
}

// leftBehind counts what the nodes of a folder still run.
func leftBehind(dir string) (remains, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	left := remains{}
	folders, err := zoneFolders(dir)
	if err != nil {
		return left, err
	}
	for _, folder := range folders {
		s, ok, err := readNode(folder)
		if err != nil || !ok {
			continue
		}
		e, err := s.open("", slog.New(slog.DiscardHandler))
		if err != nil {
			return left, err
		}
		for _, rt := range e.runtimes {
			containers, err := rt.List(ctx)
			if err != nil {
				return left, errors.Join(err, e.close())
			}
			for _, container := range containers {
				if container.Running {
					left.count(container)
				}
			}
		}
		if err := e.close(); err != nil {
			return left, err
		}
	}
	return left, nil
}

// endNode stops and removes every container of a node; masters first, so that they start nothing new.
func endNode(ctx context.Context, s engineSettings) (ended remains, err error) {
	e, err := s.open("", slog.New(slog.DiscardHandler))
	if err != nil {
		return ended, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	for _, kind := range []corev1.ContainerSpec_Runtime{corev1.ContainerSpec_PROCESS, corev1.ContainerSpec_DOCKER} {
		rt := e.runtimes[kind]
		containers, err := rt.List(ctx)
		if errdefs.IsUnavailable(err) && kind == corev1.ContainerSpec_DOCKER {
			return ended, fmt.Errorf("%s; start the engine and try again", wire.Sentence(err))
		}
		if err != nil {
			return ended, err
		}
		group, limited := errgroup.WithContext(ctx)
		group.SetLimit(maxEnding)
		for _, container := range containers {
			if container.Running {
				ended.count(container)
			}
			group.Go(func() error {
				if err := rt.Stop(limited, container.ID, endGrace); err != nil {
					return err
				}
				return errors.Join(rt.Remove(limited, container.ID), rt.Purge(limited, container.ID))
			})
		}
		if err := group.Wait(); err != nil {
			return ended, err
		}
	}
	stateDirs, err := e.stateDirs.StateDirs()
	for _, dir := range stateDirs {
		err = errors.Join(err, e.stateDirs.RemoveStateDir(ctx, dir))
	}
	return ended, err
}
