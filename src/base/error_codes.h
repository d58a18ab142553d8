// The table of error codes: name, stable number, errno, phrase.
//
// Numbers are never reused.  Ranges: base 1, dev 100, format 200, space 300, meta 400, store 500,
// dag 600, volume 700, fs 800, fuse 900, cli 1000, check 1100.
#pragma once

// clang-format off
#define CAW_ERROR_CODES(X)                                                                     \
  X(unknown,               1, EIO,       "unknown error")                                      \
  X(invalid_argument,      2, EINVAL,    "an argument is not valid")                           \
  X(not_supported,         3, EOPNOTSUPP,"not supported")                                      \
  X(interrupted,           4, EINTR,     "interrupted")                                        \
  /* dev */                                                                                    \
  X(device_open,         100, EIO,       "cannot open the image or device")                    \
  X(device_read,         101, EIO,       "the device failed to read")                          \
  X(device_write,        102, EIO,       "the device failed to write")                         \
  X(device_flush,        103, EIO,       "the device failed to flush")                         \
  X(device_bounds,       104, EIO,       "access past the end of the device")                  \
  X(device_full,         105, ENOSPC,    "the file system that holds the image is full")       \
  X(device_in_use,       106, EBUSY,     "the image is in use by another mount")               \
  X(device_size,         107, EINVAL,    "the image is too small or not a whole number of blocks") \
  X(device_kind,         108, EINVAL,    "neither a regular file nor a block device")          \
  /* format */                                                                                 \
  X(not_a_volume,        200, EINVAL,    "not a cawfs volume")                                 \
  X(format_version,      201, EINVAL,    "made by a version of cawfs this one cannot read")    \
  X(superblock_damaged,  202, EIO,       "both superblocks are damaged")                       \
  X(volume_truncated,    203, EIO,       "the image is shorter than its volume")               \
  X(node_checksum,       204, EIO,       "checksum mismatch in a node")                        \
  X(node_identity,       205, EIO,       "a block holds another node than asked for")          \
  X(node_header,         206, EIO,       "damaged node header")                                \
  X(node_payload,        207, EIO,       "damaged node contents")                              \
  X(blob_checksum,       208, EIO,       "checksum mismatch in file data")                     \
  X(decompress,          209, EIO,       "compressed data are damaged")                        \
  X(block_order,         210, EIO,       "records out of order in a node")                     \
  X(message_malformed,   211, EIO,       "damaged record")                                     \
  X(interior_malformed,  212, EIO,       "damaged interior node")                              \
  X(value_too_large,     213, EFBIG,     "a value is too large")                               \
  X(log_frame,           214, EIO,       "a damaged piece of the log")                         \
  X(log_malformed,       215, EIO,       "a damaged record in the log")                        \
  /* space */                                                                                  \
  X(no_space,            300, ENOSPC,    "the volume is full")                                 \
  X(bitmap_damaged,      301, EIO,       "damaged allocation bitmap")                          \
  X(region_table,        302, EIO,       "damaged region table")                               \
  X(checkpoint_order,    303, EIO,       "a checkpoint began before the last was durable")     \
  /* meta */                                                                                   \
  X(meta_page,           400, EIO,       "damaged node-table page")                            \
  X(meta_depth,          401, EIO,       "node table deeper than allowed")                     \
  /* store */                                                                                  \
  X(node_absent,         500, EIO,       "a node that is referred to does not exist")          \
  X(volume_failed,       501, EROFS,     "the volume went read-only after a failed write")     \
  X(count_underflow,     502, EIO,       "a reference count fell below zero")                  \
  X(read_only,           503, EROFS,     "the volume is mounted read-only")                    \
  X(node_entry,          504, EIO,       "damaged node-table entry")                           \
  /* dag */                                                                                    \
  X(node_height,         600, EIO,       "a child is not below its parent")                    \
  X(node_superseded,     601, EAGAIN,    "the node changed meanwhile")                         \
  /* volume */                                                                                 \
  X(tree_not_private,    700, EAGAIN,    "the tree became shared meanwhile")                   \
  X(tree_absent,         701, EIO,       "a tree that a record names does not exist")          \
  X(log_full,            702, EAGAIN,    "the log is full until the next checkpoint")          \
  /* fs */                                                                                     \
  X(not_found,           800, ENOENT,    "no such file or directory")                          \
  X(exists,              801, EEXIST,    "the name exists already")                            \
  X(not_a_directory,     802, ENOTDIR,   "not a directory")                                    \
  X(is_a_directory,      803, EISDIR,    "is a directory")                                     \
  X(not_empty,           804, ENOTEMPTY, "the directory is not empty")                         \
  X(name_too_long,       805, ENAMETOOLONG, "a name is longer than 255 bytes")                 \
  X(file_too_large,      806, EFBIG,     "the file would be too large")                        \
  X(permission,          807, EPERM,     "operation not permitted")                            \
  X(access_denied,       808, EACCES,    "permission denied")                                  \
  X(rename_into_self,    809, EINVAL,    "a directory cannot be moved into itself")            \
  X(record_malformed,    810, EIO,       "damaged file-system record")                         \
  X(hard_link,           811, EPERM,     "a directory has one name only")                      \
  X(xattr_unsupported,   812, EOPNOTSUPP,"no extended attribute of that kind is kept")         \
  X(stale_inode,         813, ESTALE,    "the file no longer exists")                          \
  X(cross_device,        814, EXDEV,     "source and destination are on different volumes")    \
  X(busy,                815, EBUSY,     "in use")                                             \
  X(too_many_links,      816, EMLINK,    "too many links")                                     \
  X(too_many_linked,     817, EXDEV,     "too many hard-linked names to change at once")       \
  X(xattr_absent,        820, ENODATA,   "no such extended attribute")                         \
  X(xattr_too_large,     821, E2BIG,     "an extended attribute is too large")                 \
  X(xattr_no_space,      822, ENOSPC,    "too many extended attributes on one file")           \
  /* fuse, cli */                                                                              \
  X(fuse_device,         900, ENODEV,    "cannot open /dev/fuse")                              \
  X(fuse_session,        901, EIO,       "cannot start the FUSE session")                      \
  X(mount_point,         902, ENOTDIR,   "the mount point is not usable")                      \
  X(not_mounted,         903, EINVAL,    "no cawfs volume is mounted there")                   \
  X(mount_shared,        904, EPERM,     "ordinary users may not mount with allow_other here")     \
  X(usage,              1000, EINVAL,    "wrong usage")                                        \
  X(check_found,        1100, EUCLEAN,   "the volume is damaged")                              \
  X(check_count,        1101, EUCLEAN,   "a stored reference count is wrong")                  \
  X(check_unreachable,  1102, EUCLEAN,   "a node that nothing refers to")                      \
  X(check_leaked,       1103, EUCLEAN,   "blocks in use that nothing refers to")               \
  X(check_unmarked,     1104, EUCLEAN,   "blocks that are referred to, but free")              \
  X(check_double_use,   1105, EUCLEAN,   "blocks used twice")                                  \
  X(check_reference,    1106, EUCLEAN,   "a reference to the wrong kind of object")            \
  X(check_cycle,        1107, EUCLEAN,   "a tree contains itself")                             \
  X(check_dead,         1108, EUCLEAN,   "a damaged list of dead nodes")                       \
  X(check_figures,      1109, EUCLEAN,   "a wrong figure in the superblock or a table")       \
  X(check_files,        1110, EUCLEAN,   "names, records and data do not fit together")
// clang-format on
