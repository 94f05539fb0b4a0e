/* Descriptors used for what they are not: files as directories, directories as files, streams as sockets, none at all. */
#include "check.h"
static w32 root, file, buffer[64], n;
static w64 at;

/* Only what was preopened as a directory says so; other kinds have tags of their own. */
static void not_preopened(w32 fd)
{
    w32 errno_ = raw_fd_prestat_get(fd, AT(buffer));
    EXPECT(errno_, 0, BADF, NOTDIR);
    CHECK(errno_ || *(unsigned char *)buffer != 0);
    EXPECT(raw_fd_prestat_dir_name(fd, AT(buffer), 8), BADF, NOTDIR, INVAL);
}

static void no_descriptor(w32 fd)
{
    w32 iov[2] = {AT(buffer), 8};
    EXPECT(raw_fd_advise(fd, 0, 0, 0), BADF);
    EXPECT(raw_fd_allocate(fd, 0, 1), BADF, NOTSUP);
    EXPECT(raw_fd_close(fd), BADF);
    EXPECT(raw_fd_datasync(fd), BADF);
    EXPECT(raw_fd_fdstat_get(fd, AT(buffer)), BADF);
    EXPECT(raw_fd_fdstat_set_flags(fd, 0), BADF);
    EXPECT(raw_fd_fdstat_set_rights(fd, 0, 0), BADF, NOTSUP);
    EXPECT(raw_fd_filestat_get(fd, AT(buffer)), BADF);
    EXPECT(raw_fd_filestat_set_size(fd, 0), BADF);
    EXPECT(raw_fd_filestat_set_times(fd, 0, 0, 0), BADF);
    EXPECT(raw_fd_pread(fd, AT(iov), 1, 0, AT(&n)), BADF);
    EXPECT(raw_fd_prestat_get(fd, AT(buffer)), BADF);
    EXPECT(raw_fd_prestat_dir_name(fd, AT(buffer), 8), BADF);
    EXPECT(raw_fd_pwrite(fd, AT(iov), 1, 0, AT(&n)), BADF);
    EXPECT(raw_fd_read(fd, AT(iov), 1, AT(&n)), BADF);
    EXPECT(raw_fd_readdir(fd, AT(buffer), 64, 0, AT(&n)), BADF);
    EXPECT(raw_fd_renumber(fd, 1), BADF);
    EXPECT(raw_fd_renumber(1, fd), BADF);
    EXPECT(raw_fd_seek(fd, 0, 0, AT(&at)), BADF);
    EXPECT(raw_fd_sync(fd), BADF);
    EXPECT(raw_fd_tell(fd, AT(&at)), BADF);
    EXPECT(raw_fd_write(fd, AT(iov), 1, AT(&n)), BADF);
    EXPECT(raw_path_create_directory(fd, STR("x")), BADF);
    EXPECT(raw_path_filestat_get(fd, 0, STR("x"), AT(buffer)), BADF);
    EXPECT(raw_path_filestat_set_times(fd, 0, STR("x"), 0, 0, 0), BADF);
    EXPECT(raw_path_link(fd, 0, STR("x"), root, STR("y")), BADF);
    EXPECT(raw_path_link(root, 0, STR("file"), fd, STR("y")), BADF);
    EXPECT(raw_path_open(fd, 0, STR("x"), 0, 0, 0, 0, AT(&n)), BADF);
    EXPECT(raw_path_readlink(fd, STR("x"), AT(buffer), 64, AT(&n)), BADF);
    EXPECT(raw_path_remove_directory(fd, STR("x")), BADF);
    EXPECT(raw_path_rename(fd, STR("x"), root, STR("y")), BADF);
    EXPECT(raw_path_rename(root, STR("file"), fd, STR("y")), BADF);
    EXPECT(raw_path_symlink(STR("x"), fd, STR("y")), BADF);
    EXPECT(raw_path_unlink_file(fd, STR("x")), BADF);
    EXPECT(raw_sock_accept(fd, 0, AT(&n)), BADF);
    EXPECT(raw_sock_recv(fd, AT(iov), 1, 0, AT(&n), AT(buffer)), BADF);
    EXPECT(raw_sock_send(fd, AT(iov), 1, 0, AT(&n)), BADF);
    EXPECT(raw_sock_shutdown(fd, 3), BADF);
}

/* A file or a stream is no directory and no socket. */
static void no_directory(w32 fd)
{
    w32 iov[2] = {AT(buffer), 8};
    EXPECT(raw_fd_readdir(fd, AT(buffer), 64, 0, AT(&n)), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_open(fd, 0, STR("x"), 0, 0, 0, 0, AT(&n)), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_create_directory(fd, STR("x")), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_filestat_get(fd, 0, STR("."), AT(buffer)), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_rename(fd, STR("x"), root, STR("y")), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_symlink(STR("x"), fd, STR("y")), NOTDIR, BADF, NOTCAPABLE);
    EXPECT(raw_path_unlink_file(fd, STR("x")), NOTDIR, BADF, NOTCAPABLE);
    not_preopened(fd);
    EXPECT(raw_sock_accept(fd, 0, AT(&n)), NOTSOCK, BADF, NOTCAPABLE, NOTSUP);
    EXPECT(raw_sock_recv(fd, AT(iov), 1, 0, AT(&n), AT(buffer)), NOTSOCK, BADF, NOTCAPABLE);
    EXPECT(raw_sock_send(fd, AT(iov), 1, 0, AT(&n)), NOTSOCK, BADF, NOTCAPABLE);
    EXPECT(raw_sock_shutdown(fd, 3), NOTSOCK, BADF, NOTCAPABLE);
}

int main(void)
{
    w32 iov[2] = {AT(buffer), 8}, closed, directory;
    root = preopen();
    file = create_at(root, "file");
    closed = create_at(root, "closed");
    OK(raw_path_create_directory(root, STR("dir")));
    OK(raw_path_open(root, 0, STR("dir"), __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, ALL_RIGHTS, 0, AT(&directory)));
    OK(raw_fd_close(closed));

    const w32 none[] = {closed, 1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFF9C /* AT_FDCWD */};
    for (int i = 0; i < 6; i++)
        no_descriptor(none[i]);
    no_directory(file);
    no_directory(1);

    EXPECT(raw_fd_seek(1, 0, 0, AT(&at)), SPIPE, BADF, NOTCAPABLE, INVAL); /* a stream has no positions */
    EXPECT(raw_fd_tell(1, AT(&at)), SPIPE, BADF, NOTCAPABLE, INVAL);
    EXPECT(raw_fd_pread(0, AT(iov), 1, 0, AT(&n)), SPIPE, BADF, NOTCAPABLE, INVAL, NOTSUP);
    EXPECT(raw_fd_pwrite(1, AT(iov), 1, 0, AT(&n)), SPIPE, BADF, NOTCAPABLE, INVAL, NOTSUP);
    EXPECT(raw_fd_filestat_set_size(1, 0), SPIPE, BADF, NOTCAPABLE, INVAL, NOTSUP);
    EXPECT(raw_fd_read(1, AT(iov), 1, AT(&n)), BADF, NOTCAPABLE); /* each stream goes one way */
    EXPECT(raw_fd_write(0, AT(iov), 1, AT(&n)), BADF, NOTCAPABLE);
    EXPECT(raw_sock_recv(directory, AT(iov), 1, 0, AT(&n), AT(buffer)), NOTSOCK, BADF, NOTCAPABLE);
    not_preopened(directory);
    OK(raw_fd_readdir(directory, AT(buffer), 64, 0, AT(&n)));
    return 0;
}
