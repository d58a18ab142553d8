/*
 * caw/ioctl.h: what programs ask of a mounted cawfs volume, beyond POSIX.
 *
 * The requests are ioctl(2) calls on an open descriptor (not O_PATH) of a file or directory of the
 * volume; O_RDONLY suffices, for what is allowed depends on the caller, not on the descriptor.
 * Before the first one, check with fstatfs(2) that f_type is FUSE_SUPER_MAGIC: on other file
 * systems the numbers may mean something else.  A FUSE file system that is not cawfs answers ENOTTY
 * (some: ENOSYS, EINVAL).
 *
 * All structures are the same for 32- and 64-bit callers and under C and C++.  Integers are in host
 * order.  Reserved members are zero on the way in and ignored on the way out.  Names are bytes, not
 * text: 1 to 255 of them without '/', ended by a NUL.
 *
 * Cloning SRC to the name NAME in the directory PARENT:
 *
 *     struct caw_token token;
 *     struct caw_clone clone = {0};
 *     int src = open(SRC, O_RDONLY | O_NONBLOCK);
 *     int parent = open(PARENT, O_RDONLY | O_DIRECTORY);
 *     ioctl(src, CAW_IOC_TOKEN, &token);
 *     clone.source = token;
 *     strcpy(clone.name, NAME);
 *     ioctl(parent, CAW_IOC_CLONE, &clone);
 *
 * docs/ioctl.md says more; docs/clone.md is the contract of a clone.
 */
#ifndef CAW_IOCTL_H
#define CAW_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAW_NAME_BYTES 256 /* the longest name and its NUL */
#define CAW_TOKEN_BYTES 16

/*
 * Stands for the file or directory whose open descriptor it was asked from.  Cannot be guessed;
 * means nothing to another volume; is good for CAW_TOKEN_SECONDS, for any number of requests, also
 * after the descriptor was closed or the file renamed.
 */
struct caw_token {
	__u8 bytes[CAW_TOKEN_BYTES];
};

#define CAW_TOKEN_SECONDS 30

/* caw_clone.flags, caw_remove.flags: durable when the call returns. */
#define CAW_SYNC 1u

/*
 * CAW_IOC_CLONE, on the directory that gets the new name.
 *   off size member
 *     0   16 source      what to clone: a directory or a regular file of the same volume
 *    16    4 flags       0 or CAW_SYNC
 *    20    4 reserved0
 *    24    8 ino         out: st_ino of the clone
 *    32   32 reserved1
 *    64  256 name        must not exist
 * Fails: EEXIST, EXDEV (the token is of another volume, or too old), EMLINK (too many names in the
 * source are of files linked between clones), ENOENT (the source was
 * removed), EINVAL (source neither directory nor regular file; unknown flags; bad name), ENOTDIR,
 * ENAMETOOLONG, EACCES, EPERM, ENOSPC, EROFS, EIO.  A failed clone leaves nothing behind.
 */
struct caw_clone {
	struct caw_token source;
	__u32 flags;
	__u32 reserved0;
	__u64 ino;
	__u64 reserved1[4];
	char name[CAW_NAME_BYTES];
};

/*
 * CAW_IOC_REMOVE_TREE, on the directory that holds the name.  Removes a file or a directory with
 * all below it, at once.
 *   off size member
 *     0    4 flags       0 or CAW_SYNC
 *     4    4 reserved0
 *     8   24 reserved1
 *    32  256 name
 * Fails: ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG, EACCES or EPERM (the caller may not remove it at
 * once: remove file by file), EMLINK (too many hard links in it: likewise), EROFS, EIO.
 */
struct caw_remove {
	__u32 flags;
	__u32 reserved0;
	__u64 reserved1[3];
	char name[CAW_NAME_BYTES];
};

/*
 * CAW_IOC_SAME, on one of the two: do they share all their content, attributes left aside?  Costs
 * the same whatever their size.  "Not the same" means that they may differ.
 *   off size member
 *     0   16 other       the other one
 *    16    4 same        out: 1 or 0
 *    20   12 reserved0
 * Fails: EXDEV (the token is of another volume, or too old), EIO.
 */
struct caw_same {
	struct caw_token other;
	__u32 same;
	__u32 reserved0[3];
};

#define CAW_INFO_READ_ONLY 1u /* mounted read-only, or gone read-only after a failed write */
#define CAW_INFO_SHARED 2u    /* other users may look in (allow_other) */

/*
 * CAW_IOC_INFO, on any descriptor of the volume.  Counts run from the time of mounting.
 * Members are only ever added, in place of reserved ones (which read as zero).
 */
struct caw_info {
	__u32 version;              /* of this structure: 1 */
	__u32 flags;                /* CAW_INFO_... */
	__u32 format_version;       /* of the volume */
	__s32 pid;                  /* of the server, as the server sees it */
	__u8 uuid[16];
	char label[72];             /* ended by a NUL */
	__u64 total_bytes;          /* space */
	__u64 used_bytes;
	__u64 reserve_bytes;        /* kept back for removals */
	__u64 reclaiming_bytes;     /* of used: removed, coming back */
	__u64 node_reads;           /* nodes read from the device, and their bytes */
	__u64 node_read_bytes;
	__u64 node_writes;
	__u64 node_write_bytes;
	__u64 blob_reads;           /* file data likewise */
	__u64 blob_read_bytes;
	__u64 blob_writes;
	__u64 blob_write_bytes;
	__u64 checkpoints;
	__u64 cache_bytes;          /* memory now */
	__u64 dirty_bytes;          /* of that: not yet on the device */
	__u64 dead_nodes;           /* waiting to be reclaimed */
	__u64 requests;             /* from the kernel */
	__u64 clones;               /* made since mounting */
	__u64 flushed_writers;      /* open files flushed by a clone before it copied */
	char failure[128];          /* why it went read-only, ended by a NUL; else empty */
	__u64 reserved[16];
};

#define CAW_SCRUB_ERRORS 8

/* caw_scrub.flags, out: everything was looked at. */
#define CAW_SCRUB_DONE 1u

/* caw_scrub_error.kind */
#define CAW_SCRUB_NODE 1u /* `where` is the node's id */
#define CAW_SCRUB_DATA 2u /* file data; `where` is their first block */

struct caw_scrub_error {
	__u64 where;
	__u32 kind;
	__u32 code; /* as in caw fsck --json */
};

/*
 * CAW_IOC_SCRUB, on any descriptor of the volume, by root or by who mounted it.  Reads from the
 * device, not from memory, some of what the last checkpoint holds, verifies it, and says where to
 * go on: call it with the same structure until CAW_SCRUB_DONE is set.  What is removed or written
 * anew meanwhile is no error.
 *   off size member
 *     0   24 cursor       in and out: zero to begin
 *    24    4 max_bytes    in: about as much is read; 0: 4 MiB; at most 64 MiB
 *    28    4 flags        out: CAW_SCRUB_DONE; zero on the way in
 *    32    8 bytes        out, of this call: read
 *    40    8 nodes        out, of this call: tree nodes verified
 *    48    8 blobs        out, of this call: pieces of file data verified
 *    56    8 lost_blobs   out, of this call: those that a repair has given up
 *    64    8 total_bytes  out: about as much there is to read in all
 *    72    4 error_count  out, of this call
 *    76    4 reserved0
 *    80  128 errors       out
 *   208   48 reserved1
 * Fails: EPERM, EINVAL, EIO (the node table cannot be read).
 */
struct caw_scrub {
	__u64 cursor[3];
	__u32 max_bytes;
	__u32 flags;
	__u64 bytes;
	__u64 nodes;
	__u64 blobs;
	__u64 lost_blobs;
	__u64 total_bytes;
	__u32 error_count;
	__u32 reserved0;
	struct caw_scrub_error errors[CAW_SCRUB_ERRORS];
	__u64 reserved1[6];
};

#define CAW_IOC_MAGIC 0xCA
#define CAW_IOC_TOKEN _IOR(CAW_IOC_MAGIC, 1, struct caw_token)
#define CAW_IOC_CLONE _IOWR(CAW_IOC_MAGIC, 2, struct caw_clone)
#define CAW_IOC_REMOVE_TREE _IOW(CAW_IOC_MAGIC, 3, struct caw_remove)
/* All that happened before, on the whole volume, is durable when it returns. */
#define CAW_IOC_SYNC _IO(CAW_IOC_MAGIC, 4)
#define CAW_IOC_SAME _IOWR(CAW_IOC_MAGIC, 5, struct caw_same)
#define CAW_IOC_INFO _IOR(CAW_IOC_MAGIC, 6, struct caw_info)
/* As CAW_IOC_SYNC, and in a checkpoint instead of the log: the figures of used space hold
 * everything that happened before, and freed space can be used again. */
#define CAW_IOC_CHECKPOINT _IO(CAW_IOC_MAGIC, 7)
#define CAW_IOC_SCRUB _IOWR(CAW_IOC_MAGIC, 8, struct caw_scrub)

#ifdef __cplusplus
} /* extern "C" */
#endif

/* These sizes are in the request numbers: they never change. */
#if defined(__cplusplus)
#define CAW_IOCTL_SIZE(type, bytes) static_assert(sizeof(struct type) == bytes, #type)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define CAW_IOCTL_SIZE(type, bytes) _Static_assert(sizeof(struct type) == bytes, #type)
#else
#define CAW_IOCTL_SIZE(type, bytes) struct type
#endif
CAW_IOCTL_SIZE(caw_token, 16);
CAW_IOCTL_SIZE(caw_clone, 320);
CAW_IOCTL_SIZE(caw_remove, 288);
CAW_IOCTL_SIZE(caw_same, 32);
CAW_IOCTL_SIZE(caw_info, 512);
CAW_IOCTL_SIZE(caw_scrub, 256);
#undef CAW_IOCTL_SIZE

#endif /* CAW_IOCTL_H */
