package world

// Plant is a fault of the program itself that a run is given, to see that a law finds it.
type Plant string

const (
	// StoreLies: the store acknowledges what it has not brought to the disk.
	StoreLies Plant = "the store acknowledges before it syncs"
	// StoreDamages: a record is cut in half when the ResourceManager is killed.
	StoreDamages Plant = "the store damages a record"
	// StoreForgets: the record of the queues is gone when the ResourceManager was killed, and nothing says so.
	StoreForgets Plant = "the store forgets a record"
	// EpochStands: the store does not count how often it was opened.
	EpochStands Plant = "the store does not count epochs"
	// TellsBeforeItStores: the ResourceManager tells what a turn has decided, and then stores it.
	TellsBeforeItStores Plant = "the ResourceManager tells before it stores"
	// RegistryKeeps: the registry keeps endpoints that were withdrawn.
	RegistryKeeps Plant = "the registry keeps withdrawn endpoints"
	// RegistryBlinks: the registry has a service without endpoints for a moment whenever it changes.
	RegistryBlinks Plant = "the registry empties a service that changes"
	// BalancerLies: balancers confirm what they have not applied.
	BalancerLies Plant = "a balancer confirms before it applies"
	// StartsTwice: a container that is started starts on another node too.
	StartsTwice Plant = "a container starts on two nodes"
	// StartsAgain: an engine starts a container again that has ended.
	StartsAgain Plant = "a container that has ended starts again"
	// GoneTooEarly: a node says that a container is gone while it is still ending.
	GoneTooEarly Plant = "a node reports a container gone too early"
	// NodeIsDeaf: a node drops commands to stop a container.
	NodeIsDeaf Plant = "a node drops commands"
	// LateStops: a container ends minutes after it was to end.
	LateStops Plant = "a node stops containers minutes late"
	// NodeOverstates: a node says that it has more than it has.
	NodeOverstates Plant = "a node says that it has more than it has"
	// ReapsAll: the ResourceManager has a node that registers end everything.
	ReapsAll Plant = "a node is told to end what it may keep"
	// OldMasterActs: the ResourceManager goes on answering an attempt that was replaced.
	OldMasterActs Plant = "an attempt that was replaced is still answered"
	// MasterChats: a master saves another memo whenever one is acknowledged.
	MasterChats Plant = "a master answers every answer"
	// DeploysTwice: the ResourceManager takes a deployment that arrives twice for two.
	DeploysTwice Plant = "a deployment that arrives twice is two"
)
